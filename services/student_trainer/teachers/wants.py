"""Which outputs hold which: an answer that has more than is wanted is enough."""

import numpy as np

from teacher_api.messages import Outputs, Want
from teacher_api.tensors import Array


def holds(more: Want, less: Want) -> bool:
    """Whether an answer to `more` has all that `less` wants; float32 can be halved, as a teacher does."""
    if less.logits > more.logits:
        return False
    if not (set(less.layers) <= set(more.layers) and set(less.attentions) <= set(more.attentions)):
        return False
    if less.layers and not _pools(more, less):
        return False
    only_logits = not less.layers and not less.attentions
    return only_logits or less.hidden_dtype in ("float16", more.hidden_dtype)


def part(outputs: Outputs, want: Want) -> Outputs:
    """What is wanted of outputs that hold it."""
    hidden = {layer: _as(_pooled(outputs, layer, want), want) for layer in want.layers}
    attentions = {layer: _as(outputs.attentions[layer], want) for layer in want.attentions}
    mask = outputs.mask if want.layers and want.pooling == "none" else None
    return Outputs(outputs.logits if want.logits else None, hidden, mask, attentions)


def shown(want: Want) -> str:
    """A want in an error's text."""
    parts = ["logits"] if want.logits else []
    if want.layers:
        layers = ", ".join(map(str, want.layers))
        parts.append(f"layers {layers} (pooling {want.pooling}, {want.hidden_dtype})")
    if want.attentions:
        parts.append(f"attentions of layers {', '.join(map(str, want.attentions))} ({want.hidden_dtype})")
    return " and ".join(parts)


def _pools(more: Want, less: Want) -> bool:
    """Pooled states are in whole ones; a mean of halved numbers is not what a teacher would halve."""
    whole = more.pooling == "none" and (less.pooling == "cls" or more.hidden_dtype == "float32")
    return whole or less.pooling == more.pooling


def _pooled(outputs: Outputs, layer: int, want: Want) -> Array:
    states = outputs.hidden[layer]
    if outputs.mask is None or want.pooling == "none":
        return states
    pooled: Array = states[0] if want.pooling == "cls" else states[outputs.mask.astype(bool)].mean(axis=0)
    return pooled


def _as(values: Array, want: Want) -> Array:
    with np.errstate(over="ignore"):
        return values.astype(want.hidden_dtype, copy=False)
