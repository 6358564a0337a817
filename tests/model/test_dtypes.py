"""What the processor is good at, linears in 8 bits, and the attention kernels of an accelerator."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import MAX_LENGTH
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from teacher_api.messages import Instance, Want
from teacher_server.model import Model, ModelError, attention
from teacher_server.model.attention import Rows, looped, varlen
from teacher_server.model.int8 import HALF, Int8Linear
from teacher_server.model.loading import load_checkpoint
from teacher_server.model.runtimes import choose_runtime

TEXTS = [Instance("the cat " * count) for count in (9, 1, 4, 1, 7, 2)]


@pytest.mark.parametrize(
    ("instructions", "dtype"),
    [({"avx512_bf16": True}, "bfloat16"), ({"amx_bf16": True}, "bfloat16"), ({"avx512_f": True}, "float32")],
)
def test_auto_takes_bfloat16_only_with_its_instructions(
    instructions: dict[str, bool], dtype: str, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    assert load_checkpoint(str(tiny("bert")), "cpu", "auto").dtype == dtype


@pytest.mark.parametrize("kind", ["albert", "bert", "distilbert", "mpnet"])
def test_int8_comes_near_whatever_the_company(kind: str, tiny: Any, plain: Any) -> None:
    model, alone = Model.load(str(tiny(kind)), dtype="int8", max_length=MAX_LENGTH), plain(tiny(kind))
    assert model.description.dtype == "int8"
    encoded, want = model.encode(TEXTS), Want(layers=(3,))
    for text, one, answer in zip(TEXTS, encoded, model.run(encoded, [want] * len(encoded)), strict=True):
        logits, layers = alone(text.text)
        np.testing.assert_allclose(answer.logits, logits, atol=0.1)
        np.testing.assert_allclose(answer.hidden[3], layers[3][0], atol=0.15)
        assert not np.array_equal(answer.hidden[3], layers[3][0])  # it was rounded indeed
        np.testing.assert_allclose(answer.logits, model.run([one], [want])[0].logits, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_int8_products_are_exact(bias: bool) -> None:
    """Against the same rounding, multiplied in 64 bits: the largest values of all, too."""
    linear = torch.nn.Linear(96, 40, bias).requires_grad_(False)
    linear.weight[:20], states = linear.weight[:20].sign(), torch.randn(3, 7, 96)
    states[0, :2] = 1
    scale = states.abs().amax(-1, keepdim=True).double() / HALF
    rounded = (states / scale.float() + 0.5).floor().double()
    step = (linear.weight.abs().amax(1) / 127).double()
    weight = (linear.weight / step.float()[:, None]).round().double()
    expected = rounded @ weight.T * scale * step + (linear.bias.double() if bias else 0)
    torch.testing.assert_close(Int8Linear(linear)(states).double(), expected, atol=1e-4, rtol=1e-5)


def test_int8_of_zeros_is_the_bias() -> None:
    linear = torch.nn.Linear(8, 4).requires_grad_(False)
    torch.testing.assert_close(Int8Linear(linear)(torch.zeros(1, 2, 8))[0, 0], linear.bias)


def test_int8_is_refused_off_the_cpu(tiny: Any) -> None:
    with pytest.raises(ModelError, match=r"'int8' needs a CPU .* not meta: take bfloat16"):
        load_checkpoint(str(tiny("bert")), "meta", "int8")


def test_an_accelerator_without_flash_attention_pads(tiny: Any) -> None:
    network = AutoModelForSequenceClassification.from_pretrained(tiny("bert")).to("meta")
    assert choose_runtime(network).name == "padded"


def test_flash_kernel_is_given_what_sdpa_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel itself needs CUDA: in its place, its documented meaning, an instance at a time."""

    def by_the_book(query: Tensor, key: Tensor, value: Tensor, *places: Any) -> Tensor:
        starts, key_starts, longest, longest_key = places
        assert starts.dtype == key_starts.dtype == torch.int32
        assert starts is key_starts or starts.tolist() == [*range(len(key_starts))]  # one token of each
        assert (longest, longest_key) == (starts.diff().max(), key_starts.diff().max())
        each = []
        for (start, end), (first, last) in zip(pairwise(starts), pairwise(key_starts), strict=True):
            q, k, v = (one.transpose(0, 1) for one in (query[start:end], key[first:last], value[first:last]))
            weights = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)
            each.append((weights @ v).transpose(0, 1))
        return torch.cat(each)

    monkeypatch.setattr(attention, "varlen_attn", by_the_book)
    rows, qkv = Rows.of([2, 3, 3, 9], torch.device("cpu")), torch.randn(17, 3, 4, 8)
    whole = looped(qkv, rows, None, False)
    torch.testing.assert_close(varlen(qkv, rows, None, False), whole, atol=1e-6, rtol=1e-5)
    for attend in (varlen, looped):
        firsts = attend(qkv, rows, None, True)[: len(rows.lengths)]
        torch.testing.assert_close(firsts, whole[[0, 2, 5, 8]], atol=1e-6, rtol=1e-5)
