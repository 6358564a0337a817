"""Linears whose weights lie as oneDNN reads them: x86 CPUs, float32 and bfloat16.

The values are those of nn.Linear within rounding. torch lays a weight out anew at each call, which for a
single text is a quarter of the time; and GELU is applied to a tile while it is still in the core's cache.
The operators are those that torch.compile's frozen graphs call.
"""

import copy
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import GELUActivation

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


def prepack(encoder: PackedEncoder, network: PreTrainedModel) -> None:
    """All linears of the layers, where device, processor and dtype are such."""
    able = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    fast = network.device.type == "cpu" and torch.cpu.get_capabilities().get("avx2")
    if able and fast and network.dtype in DTYPES:
        for layer in encoder.layers:
            assert isinstance(layer, PackedLayer)
            _prepack(layer)
        encoder.as_torch = _as_torch
        for left in network.parameters():  # of a file that stays in memory, whole, while one is a view of it
            left.data = left.data.clone()


def _prepack(layer: PackedLayer) -> None:
    for name in ("qkv", "output", "narrow"):
        setattr(layer, name, PrepackedLinear(getattr(layer, name)))
    linear, activation = layer.widen
    assert isinstance(linear, nn.Linear)
    if type(activation) is GELUActivation:  # the exact one
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
