"""What each instance's asker wants, cut out of one forward's states."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from teacher_api.messages import Outputs, Want
from teacher_api.tensors import Array
from teacher_server.model.runtimes import States


def cut(states: States, wants: Sequence[Want]) -> list[Outputs]:
    """One Outputs for each instance, on the CPU.

    Args:
        states: of one forward.
        wants: of each instance, in the order of the states.
    """
    logits = states.logits.float().numpy(force=True)
    hidden: list[dict[int, Array]] = [{} for _ in wants]
    attentions: list[dict[int, Array]] = [{} for _ in wants]
    for want, rows in _by_want(wants).items():
        for layer in want.layers:
            reduced = _reduced(states.layers[layer], states.lengths, want)
            for row in rows:
                hidden[row][layer] = reduced[row]
        for layer in want.attentions:
            for row in rows:
                values = states.attentions[layer - 1][row].to(getattr(torch, want.hidden_dtype))
                attentions[row][layer] = values.numpy(force=True)
    return [
        Outputs(
            logits=logits[row] if want.logits else None,
            hidden=hidden[row],
            mask=np.ones(states.lengths[row], np.uint8) if want.layers and want.pooling == "none" else None,
            attentions=attentions[row],
        )
        for row, want in enumerate(wants)
    ]


def _by_want(wants: Sequence[Want]) -> dict[Want, list[int]]:
    rows = defaultdict(list)
    for row, want in enumerate(wants):
        rows[want].append(row)
    return rows


def _reduced(states: Tensor, lengths: list[int], want: Want) -> list[Array]:
    """One layer [tokens, hidden] as one array for each instance."""
    dtype = getattr(torch, want.hidden_dtype)
    if want.pooling == "none":
        whole = states.to(dtype).numpy(force=True)
        return np.split(whole, list(accumulate(lengths[:-1])))
    pooled = _first(states, lengths) if want.pooling == "cls" else _mean(states, lengths)
    return list(pooled.to(dtype).numpy(force=True))


def _first(states: Tensor, lengths: list[int]) -> Tensor:
    """Of each instance, unless there is no more than that."""
    return states if len(states) == len(lengths) else states[[0, *accumulate(lengths[:-1])]]


def _mean(states: Tensor, lengths: list[int]) -> Tensor:
    """Mean over each instance's tokens, summed in float32 whatever the model's dtype."""
    sizes = torch.tensor(lengths, device=states.device)
    return torch.segment_reduce(states.float(), "mean", lengths=sizes, axis=0)
