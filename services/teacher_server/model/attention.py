"""Attention over instances one behind another [tokens, …]: within each instance, without padding."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention

LEAST_LONGEST = 128  # rows of a flash kernel's largest tile: a grid for fewer is no smaller


@dataclass(frozen=True)
class Rows:
    """Where each instance lies among the tokens.

    Attributes:
        ends: int32 [instances + 1] on the device: 0, and the place behind each instance; made-up ones follow
            where the code is compiled.
        groups: for each run of equal lengths its tokens, and (instances, length).
        tokens: of all instances.
        longest: tokens of the longest instance, or more.
        size: tokens to compute: on a CPU, and where the code is compiled, a few more.
    """

    ends: Tensor
    groups: Sequence[tuple[slice, tuple[int, int]]]
    tokens: int
    longest: int
    size: int

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device, *, few: bool = False) -> "Rows":
        """`few`: sizes, numbers of instances and longest lengths are few: a CUDA graph is for one of each."""
        tokens, longest, ends = sum(lengths), lengths[-1], [0, *accumulate(lengths)]
        size = rounded(tokens) if device.type == "cpu" else tokens
        if few:
            size, longest = rounded(tokens + 1), _power(max(LEAST_LONGEST, longest))
            ends = _filled(ends, size, longest)
        groups = list(_equal_lengths(lengths))
        return cls(torch.tensor(ends, dtype=torch.int32, device=device), groups, tokens, longest, size)


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
    attended = varlen_attn(query, key, value, rows.ends, rows.ends, rows.longest, rows.longest)
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


def rounded(number: int, least: int = 8) -> int:
    """The next of a few sizes, multiples of `least`, at most a sixteenth away on average.

    oneDNN makes and keeps code for each size that a product has: 2 MB and 3 ms for the four of a layer.
    """
    step = max(least, 1 << max(0, (number - 1).bit_length() - 4))
    return -(-number // step) * step


def _power(number: int) -> int:
    """The next power of two."""
    return 1 << (number - 1).bit_length()


def _filled(ends: list[int], size: int, longest: int) -> list[int]:
    """Made-up instances behind the real ones, so that few numbers of them are met.

    Some are empty, which the flash kernels leave at once; the last ones take what is left up to `size`.
    """
    rest = [*range(ends[-1] + longest, size, longest), size]
    empty = _power(len(ends) + len(rest)) - len(ends) - len(rest)
    return [*ends, *[ends[-1]] * empty, *rest]
