"""Attention over instances one behind another [tokens, …]: within each instance, without padding."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True)
class Rows:
    """Where each instance lies among the tokens.

    Attributes:
        lengths: tokens of each instance, ascending.
        ends: int32 [instances + 1] on the device: 0, and the place behind each instance.
        groups: for each run of equal lengths its tokens, and (instances, length).
        tokens: of all instances.
        size: tokens to compute: on a CPU a few more.
    """

    lengths: Sequence[int]
    ends: Tensor
    groups: Sequence[tuple[slice, tuple[int, int]]]
    tokens: int
    size: int

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> "Rows":
        ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
        tokens = sum(lengths)
        size = _rounded(tokens) if device.type == "cpu" else tokens
        return cls(lengths, ends, list(_equal_lengths(lengths)), tokens, size)


class Attend(Protocol):
    """How tokens attend to one another."""

    def __call__(self, qkv: Tensor, rows: Rows) -> Tensor:
        """[size, 3, heads, width] -> [size, heads, width]; behind the instances, anything finite."""


def grouped(qkv: Tensor, rows: Rows) -> Tensor:
    """Those of equal length, which are neighbours, go together through SDPA: any device, any dtype."""
    mixed = torch.empty_like(qkv[:, 0])
    for span, shape in rows.groups:
        query, key, value = qkv[span].view(*shape, *qkv.shape[1:]).permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(query, key, value)  # [count, heads, length, width]
        mixed[span].view(*shape, *mixed.shape[1:]).copy_(attended.transpose(1, 2))
    mixed[rows.tokens :] = 0
    return mixed


def varlen(qkv: Tensor, rows: Rows) -> Tensor:
    """All in one flash kernel, which knows where each instance ends: CUDA, half precision."""
    query, key, value = qkv.unbind(1)
    longest = rows.lengths[-1]
    attended = varlen_attn(query, key, value, rows.ends, rows.ends, longest, longest)
    assert isinstance(attended, Tensor)
    return attended


def probabilities(qkv: Tensor, rows: Rows) -> list[Tensor]:
    """What the kernels compute and do not say: of each instance [heads, length, length]."""
    found: list[Tensor] = []
    for span, shape in rows.groups:
        query, key, _ = qkv[span].view(*shape, *qkv.shape[1:]).permute(2, 0, 3, 1, 4)
        found += (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
    return found


def _equal_lengths(lengths: Sequence[int]) -> Iterable[tuple[slice, tuple[int, int]]]:
    """For each run of equal lengths: its tokens, and (instances, length)."""
    runs = [(len(list(run)), length) for length, run in groupby(lengths)]
    ends = accumulate((count * length for count, length in runs), initial=0)
    for (start, end), shape in zip(pairwise(ends), runs, strict=True):
        yield slice(start, end), shape


def _rounded(tokens: int) -> int:
    """The next of a few sizes, at most a sixteenth away on average.

    oneDNN makes and keeps code for each size that a product has: 2 MB and 3 ms for the four of a layer.
    """
    step = max(8, 1 << max(0, (tokens - 1).bit_length() - 4))
    return -(-tokens // step) * step
