"""Attention over instances one behind another [tokens, …]: within each instance, without padding."""

from itertools import accumulate
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import pad, scaled_dot_product_attention

LEAST_LONGEST = 128  # rows of a flash kernel's largest tile: a grid for fewer is no smaller


class Rows(NamedTuple):
    """Where each instance lies among the tokens.

    Attributes:
        ends: int32 [instances + 1] on the device: 0, and the place behind each instance; made-up ones follow
            where the code is compiled.
        firsts: int32 on the device: the place of each instance's first token; on a CPU a few more places.
        lengths: tokens of each instance.
        tokens: of all instances.
        longest: tokens of the longest instance, or more.
        size: tokens to compute: on a CPU, and where the code is compiled, a few more.
    """

    ends: Tensor
    firsts: Tensor
    lengths: list[int]
    tokens: int
    longest: int
    size: int

    @classmethod
    def of(cls, lengths: list[int], device: torch.device, *, few: bool = False) -> "Rows":
        """`few`: sizes, numbers of instances and longest lengths are few: a CUDA graph is for one of each."""
        tokens, longest, places = sum(lengths), lengths[-1], [0, *accumulate(lengths)]
        size, more = tokens, 0
        if device.type == "cpu":
            size, more = rounded(tokens), rounded(len(lengths)) - len(lengths)
        if few:
            size, longest, more = rounded(tokens + 1), _power(max(LEAST_LONGEST, longest)), 0
            places = _filled(places, size, longest)
        ends = torch.tensor(places, dtype=torch.int32, device=device)
        return cls(ends, pad(ends[:-1], (0, more)), lengths, tokens, longest, size)


class Attend(Protocol):
    """How tokens attend to one another."""

    def __call__(self, qkv: Tensor, rows: Rows, bias: Tensor | None, first: bool) -> Tensor:
        """[size, 3, heads, width] -> [size, heads, width]; behind the instances, anything finite.

        Args:
            bias: added to the scores of each instance, [heads, longest, longest].
            first: only what each instance's first token makes of the others: [firsts, heads, width].
        """


def looped(qkv: Tensor, rows: Rows, bias: Tensor | None, first: bool) -> Tensor:
    """One instance after another through SDPA: any device, any dtype."""
    # [1, heads, tokens, width] each
    query, key, value = qkv[: rows.tokens].permute(1, 2, 0, 3).unsqueeze(1).unbind()
    asking, size = rows.lengths, len(qkv)
    if first:
        query, size = query[:, :, rows.firsts[: len(asking)]], len(rows.firsts)
        asking = [1] * len(asking)
    queries, keys = query.split_with_sizes(asking, 2), key.split_with_sizes(rows.lengths, 2)
    mixed: list[Tensor] = []
    for row, values in enumerate(value.split_with_sizes(rows.lengths, 2)):
        added = None if bias is None else bias[:, : asking[row], : rows.lengths[row]]
        one = scaled_dot_product_attention(queries[row], keys[row], values, added)
        mixed.append(one.transpose(1, 2))
    mixed.append(qkv.new_zeros([1, size - sum(asking), qkv.shape[2], qkv.shape[3]]))
    return torch.cat(mixed, 1)[0]


def varlen(qkv: Tensor, rows: Rows, bias: Tensor | None, first: bool) -> Tensor:
    """All in one flash kernel, which knows where each instance ends: CUDA, half precision, without bias."""
    assert bias is None
    query, key, value = qkv.unbind(1)
    ends, longest = rows.ends, rows.longest
    if first:
        query, longest = query[rows.firsts], 1
        ends = torch.arange(len(rows.ends), dtype=torch.int32, device=ends.device)
    attended = varlen_attn(query, key, value, ends, rows.ends, longest, rows.longest)
    assert isinstance(attended, Tensor)
    return attended


def probabilities(qkv: Tensor, rows: Rows, bias: Tensor | None) -> list[Tensor]:
    """What the kernels compute and do not say: of each instance [heads, length, length]."""
    query, key, _ = qkv[: rows.tokens].permute(1, 2, 0, 3).unbind()  # [heads, tokens, width] each
    keys = key.split_with_sizes(rows.lengths, 1)
    found: list[Tensor] = []
    for row, one in enumerate(query.split_with_sizes(rows.lengths, 1)):
        scores, length = one @ keys[row].mT * one.shape[2] ** -0.5, rows.lengths[row]
        found.append((scores if bias is None else scores + bias[:, :length, :length]).softmax(-1))
    return found


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
