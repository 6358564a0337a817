"""Attention that says what attends to what, for as long as that is wanted: the fast kernels keep it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

_NAME = "telling"


@contextmanager
def telling_attentions(network: PreTrainedModel) -> Iterator[None]:
    """Within it, `output_attentions` gives the probabilities of each layer: [n, heads, tokens, tokens]."""
    usual = network.config._attn_implementation
    if usual != "eager":
        network.set_attn_implementation(_NAME if network._supports_attention_backend else "eager")
    try:
        yield
    finally:
        if usual != "eager":
            network.set_attn_implementation(usual)


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    real: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Without dropout.

    Args:
        query, key, value: [n, heads, tokens, width]; or of the real tokens alone, [1, heads, all, width].
        attention_mask: whether a token is there to be attended to [n, 1, tokens, tokens].
        real: in the latter case, which those are [n, tokens].

    Returns:
        The same with heads and tokens exchanged, and the probabilities [n, heads, tokens, tokens].
    """
    if real is not None:
        query, key, value = (_padded(states, real) for states in (query, key, value))
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1)
    mixed = (weights @ value).transpose(1, 2)
    return (mixed if real is None else mixed[real][None]).contiguous(), weights


def _padded(states: Tensor, real: Tensor) -> Tensor:
    """[1, heads, all, width] -> [n, heads, tokens, width]"""
    heads, width = states.shape[1], states.shape[-1]
    padded = states.new_zeros(*real.shape, heads, width)
    return padded.index_put((real,), states[0].transpose(0, 1)).transpose(1, 2)


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)
