"""Linears whose weights lie as oneDNN reads them: x86 CPUs, float32 and bfloat16.

The values are those of nn.Linear within rounding. torch lays a weight out anew at each call, which for a
single text is a quarter of the time; and GELU is applied to a tile while it is still in the core's cache.
The operators are those that torch.compile's frozen graphs call.
"""

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel

from teacher_server.model.attention import Rows
from teacher_server.model.packed import PackedEncoder, PackedLayer, linear_of

DTYPES = (torch.float32, torch.bfloat16)


class PrepackedLinear(nn.Module):
    """Takes an nn.Linear's place, and that of the exact GELU behind it."""

    def __init__(self, linear: nn.Linear, activation: Literal["none", "gelu"] = "none") -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self._bias = linear.bias.detach().clone()
        self._activation = activation

    def forward(self, states: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs], in the dtype of the states."""
        computed: Tensor = torch.ops.mkldnn._linear_pointwise(
            states, self._weight, self._bias, self._activation, [], "none"
        )
        return computed

    def as_torch(self) -> nn.Module:
        """The same weights in the layout, and with the sums, of torch's own linear."""
        linear = linear_of(self._weight.to_dense(), self._bias)
        return linear if self._activation == "none" else nn.Sequential(linear, nn.GELU())


class FirstAttention(nn.Module):
    """What each instance's first token makes of the others, from which no key or value is computed.

    A score q·(W x) is (q W)·x, and a sum of W x is W times the sum of x: W is applied to a first token's
    query and to its sums, not to all tokens. What the keys' bias adds to a score is the same for all of them.
    """

    def __init__(self, qkv: nn.Linear, heads: int) -> None:
        super().__init__()
        (query, key, value), biases = qkv.weight.detach().chunk(3), qkv.bias.detach().chunk(3)
        self._query = PrepackedLinear(linear_of(query, biases[0]))
        self._key = torch.stack(key.chunk(heads))  # [heads, width, hidden]
        self._value = torch.stack(value.chunk(heads)).mT.contiguous()  # [heads, hidden, width]
        self._bias, self._heads = biases[2].clone(), heads

    def forward(self, states: Tensor, rows: Rows, bias: Tensor | None) -> Tensor:
        """[size, hidden] -> [firsts, hidden]; `bias` as in Attend."""
        query = self._query(states[rows.firsts]).unflatten(1, (self._heads, -1)).transpose(0, 1)
        asking = (query @ self._key).transpose(0, 1)  # [firsts, heads, hidden]
        mixed, scale = torch.zeros_like(asking), query.shape[2] ** -0.5
        instances = states[None, None, : rows.tokens].split_with_sizes(rows.lengths, 2)
        for row, tokens in enumerate(instances):
            added = None if bias is None else bias[:, 0, : rows.lengths[row]]
            one = asking[None, row : row + 1]
            mixed[row] = scaled_dot_product_attention(one, tokens, tokens, added, scale=scale)[0, 0]
        values: Tensor = mixed.transpose(0, 1) @ self._value
        return values.transpose(0, 1).flatten(1).add_(self._bias)


def prepack(encoder: PackedEncoder, network: PreTrainedModel) -> None:
    """All linears of the layers, where device, processor and dtype are such."""
    able = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    fast = network.device.type == "cpu" and torch.cpu.get_capabilities().get("avx2")
    if able and fast and network.dtype in DTYPES:
        last: Any = encoder.layers.each[-1]
        if network.dtype == torch.float32:  # in bfloat16 it would tell whose batch a text was in
            last.first_attention = FirstAttention(last.qkv, last.heads)
        for layer in encoder.layers.each:
            _prepack(layer)
        encoder.as_torch = _as_torch
        for left in network.parameters():  # of a file that stays in memory, whole, while one is a view of it
            left.data = left.data.clone()


def _prepack(layer: Any) -> None:
    for name in ("qkv", "output", "narrow"):
        setattr(layer, name, PrepackedLinear(getattr(layer, name)))
    linear, activation = layer.widen
    if isinstance(activation, nn.GELU) and activation.approximate == "none":
        layer.widen = nn.Sequential(PrepackedLinear(linear, "gelu"))
    else:
        layer.widen = nn.Sequential(PrepackedLinear(linear), activation)


def _as_torch(layer: PackedLayer) -> PackedLayer:
    """A twin for one forward: the rounding errors of oneDNN's sums are up to twice those of torch's."""
    twin = copy.copy(layer)
    twin._modules = dict(layer._modules)
    for name in ("qkv", "output", "narrow"):
        setattr(twin, name, getattr(layer, name).as_torch())
    first, *activation = layer.widen
    assert isinstance(first, PrepackedLinear)
    twin.widen = nn.Sequential(first.as_torch(), *activation)
    return twin
