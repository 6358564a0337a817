"""Attention over instances one behind another, [1, tokens, hidden]: within each instance, without padding.

Takes the place of a BERT-like network's own self-attention, with query, key and value in one linear.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True)
class Rows:
    """Where each instance lies in the packed row.

    Attributes:
        lengths: tokens of each instance, ascending.
        ends: int32 [instances + 1] on the device: 0, and the place behind each instance.
    """

    lengths: Sequence[int]
    ends: Tensor

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> "Rows":
        return cls(lengths, torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device))


class Attend(Protocol):
    """How the packed row is attended to."""

    def __call__(self, qkv: Tensor, rows: Rows) -> Tensor:
        """[tokens, 3, heads, width] -> [tokens, heads, width]."""


def grouped(qkv: Tensor, rows: Rows) -> Tensor:
    """Those of equal length, which are neighbours, go together through SDPA: any device, any dtype."""
    mixed = []
    for span, (count, length) in _equal_lengths(rows.lengths):
        query, key, value = qkv[span].view(count, length, *qkv.shape[1:]).permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(query, key, value)  # [count, heads, length, width]
        mixed.append(attended.transpose(1, 2).flatten(0, 1))
    return torch.cat(mixed)


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
    for span, (count, length) in _equal_lengths(rows.lengths):
        query, key, _ = qkv[span].view(count, length, *qkv.shape[1:]).permute(2, 0, 3, 1, 4)
        found += (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
    return found


class PackedAttention(nn.Module):
    """Self-attention with one linear for query, key and value, and the output's if the old one had it."""

    def __init__(
        self, projections: Sequence[nn.Linear], heads: int, output: nn.Module, attend: Attend
    ) -> None:
        super().__init__()
        self.qkv, self.output = _fused(projections), output
        self._heads, self._attend = heads, attend

    def forward(
        self,
        hidden_states: Tensor,
        *_: Any,
        rows: Rows,
        weights: list[list[Tensor]] | None = None,
        **__: Any,
    ) -> tuple[Tensor, None]:
        """[1, tokens, hidden] -> the same, and None in place of attention weights: where these are wanted,
        each layer adds its own to `weights`."""
        qkv = self.qkv(hidden_states)[0].unflatten(-1, (3, self._heads, -1))
        if weights is not None:
            weights.append(probabilities(qkv, rows))
        return self.output(self._attend(qkv, rows).flatten(1)[None]), None


def pack_attention(network: nn.Module, attend: Attend) -> None:
    """Puts PackedAttention in the place of each self-attention of the BERT family, or of DistilBERT."""
    for path, module in list(network.named_modules()):
        if hasattr(module, "query"):
            projections, heads = (module.query, module.key, module.value), module.num_attention_heads
        elif hasattr(module, "q_lin"):
            projections, heads = (module.q_lin, module.k_lin, module.v_lin), module.n_heads
        else:
            continue
        output = getattr(module, "out_lin", nn.Identity())
        network.set_submodule(path, PackedAttention(projections, heads, output, attend))


def _fused(linears: Sequence[nn.Linear]) -> nn.Linear:
    """One linear whose outputs are those of all, one behind another; a fused one trains no more."""
    weight, bias = (torch.cat([getattr(one, name) for one in linears]) for name in ("weight", "bias"))
    fused = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    fused.weight, fused.bias = (
        nn.Parameter(weight, requires_grad=False),
        nn.Parameter(bias, requires_grad=False),
    )
    return fused


def _equal_lengths(lengths: Sequence[int]) -> Iterator[tuple[slice, tuple[int, int]]]:
    """For each run of equal lengths: its tokens, and (instances, length)."""
    runs = [(len(list(run)), length) for length, run in groupby(lengths)]
    ends = accumulate((count * length for count, length in runs), initial=0)
    for (start, end), shape in zip(pairwise(ends), runs, strict=True):
        yield slice(start, end), shape
