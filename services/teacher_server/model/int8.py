"""Linears in 8-bit integers: weights rounded once for each output, activations for each token.

A token's scale is its own, so that an answer does not depend on what else is in the batch. Activations
take 7 of the 8 bits: processors without VNNI add pairs of products in 16 bits, which 8 would overflow;
so every processor gives the same answers. The products are oneDNN's, by the operator that
torch.compile's quantised graphs call: torch.ao's eager quantisation is deprecated.
"""

import torch
from torch import Tensor, nn

HALF = 63  # largest magnitude of an activation in 7 bits
ZERO = 64  # the unsigned integer that stands for 0
LEAST = 1e-12  # scale of a token that is all zeros


class Int8Linear(nn.Module):
    """Takes an nn.Linear's place: about a hundredth of error."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        scale = linear.weight.abs().amax(1).clamp_min(LEAST) / 127  # [outputs]
        weight = (linear.weight / scale[:, None]).round().to(torch.int8)
        self._weight, self._scale, self._bias = (
            torch.ops.onednn.qlinear_prepack(weight, None),
            scale,
            linear.bias,
        )
        self._zeros = torch.zeros(len(scale), dtype=torch.int64)
        self._half, self._zero, self._least = HALF, ZERO, LEAST  # TorchScript reads no globals

    def forward(self, states: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs], float32."""
        scale = states.abs().amax(-1, keepdim=True).clamp_min_(self._least).div_(self._half)
        rounded = states.div(scale).add_(self._zero + 0.5).to(torch.uint8)
        products: Tensor = torch.ops.onednn.qlinear_pointwise(
            rounded,
            1.0,
            self._zero,
            self._weight,
            self._scale,
            self._zeros,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return products.mul_(scale) if self._bias is None else products.mul_(scale).add_(self._bias)


def quantise(encoder: nn.Module) -> None:
    """Every linear of the layers; pooler and head, which see one token of each instance, stay as they are."""
    for path, module in list(encoder.named_modules()):
        if isinstance(module, nn.Linear) and not path.startswith("pooler"):
            encoder.set_submodule(path, Int8Linear(module))
