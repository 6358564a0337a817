"""Linears laid out for oneDNN compute what torch's own do."""

import pytest
import torch
from torch import nn

from teacher_server.model import Model
from teacher_server.model.packed import PackedEncoder
from teacher_server.model.prepacked import PrepackedLinear

needs_avx2 = pytest.mark.skipif(
    not torch.cpu.get_capabilities().get("avx2"), reason="oneDNN's layouts are used where there is AVX2"
)


@needs_avx2
@pytest.mark.parametrize(("dtype", "step"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("tokens", [1, 7, 64, 1000])
def test_equals_a_linear_and_its_activation(tokens: int, dtype: torch.dtype, step: float) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(384, 160).requires_grad_(False)
    states = torch.randn(tokens, 384)
    for activation, after in (("none", nn.Identity()), ("gelu", nn.GELU())):
        expected = after(linear(states))
        prepacked = PrepackedLinear(linear.to(dtype), activation)(states.to(dtype))
        assert prepacked.dtype == dtype
        linear.float()
        assert (prepacked.float() - expected).abs().max() <= step * expected.abs().max()


@needs_avx2
@pytest.mark.parametrize("kind", ["bert", "distilbert", "electra", "roberta"])
def test_a_packed_model_on_a_cpu_has_no_others(kind: str, tiny: object) -> None:
    forward = Model.load(str(tiny(kind)), max_length=32)._forward  # type: ignore[operator]
    assert isinstance(forward.encoder, PackedEncoder)  # type: ignore[attr-defined]
    inside = list(forward.encoder.modules())  # type: ignore[attr-defined]
    assert sum(isinstance(one, PrepackedLinear) for one in inside) == 4 * 3 + 1  # queries of first tokens
    assert not any(isinstance(one, nn.Linear) for one in inside)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("kind", ["bert", "distilbert", "electra", "mpnet", "roberta"])
def test_torchscript_runs_what_is_packed(kind: str, dtype: str, tiny: object) -> None:
    model = Model.load(str(tiny(kind)), max_length=32, dtype=dtype)  # type: ignore[operator, arg-type]
    encoder = model._forward.encoder  # type: ignore[attr-defined]
    assert isinstance(encoder.run, torch.jit.ScriptModule)
    # Where rounding shows, a text's answer must not tell what others want beside it.
    assert encoder.layers.each[-1].first_attention is None or dtype == "float32"
