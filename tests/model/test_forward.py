"""Every architecture and both runtimes give what a plain transformers forward of the text alone gives."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from teacher_api.messages import Instance, Outputs, Pooling, Want
from teacher_server.model import Model
from teacher_server.model.packed import PackedLayer

RUNTIMES = {
    "albert": "padded",
    "bert": "packed",
    "camembert": "packed",
    "deberta-v2": "padded",
    "distilbert": "packed",
    "electra": "packed",
    "mpnet": "packed",
    "roberta": "packed",
    "xlm-roberta": "packed",
}
WORDS = ("the", "cat", "asks", "what", "it", "must", "know", "unheard-of", "<pad>", "[SEP]", "")

MAX_LENGTH = 32  # as in Plain

# Without shrinking, so that a failure, too, takes seconds.
QUICK = settings(
    max_examples=25, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)

texts = st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join)
instances = st.builds(Instance, texts, st.none() | texts)
wants = st.builds(
    Want,
    logits=st.booleans(),
    layers=st.lists(st.integers(0, 3), unique=True, max_size=4).map(tuple),
    pooling=st.sampled_from(get_args(Pooling)),
)
real = st.text(st.characters(codec="utf-8"), max_size=60) | texts


@pytest.mark.parametrize("kind", RUNTIMES)
def test_tiny_model_equals_plain_forward(kind: str, tiny: Any, plain: Any) -> None:
    model, alone = Model.load(str(tiny(kind)), max_length=MAX_LENGTH), cache(plain(tiny(kind)))
    assert model.description.runtime == RUNTIMES[kind]
    assert model.padding_free == (RUNTIMES[kind] == "packed")

    @QUICK
    @given(st.lists(st.tuples(instances, wants), min_size=1, max_size=8))
    def check(questions: list[tuple[Instance, Want]]) -> None:
        _check(model, alone, questions)

    check()


def test_real_encoder_equals_plain_forward(minilm: Path, plain: Any) -> None:
    model, alone = Model.load(str(minilm), max_length=MAX_LENGTH), cache(plain(minilm))

    @QUICK
    @given(st.lists(st.tuples(st.builds(Instance, real, st.none() | real), wants), min_size=1, max_size=8))
    def check(questions: list[tuple[Instance, Want]]) -> None:
        _check(model, alone, questions)

    check()


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_every_activation_is_computed_once(
    kind: str, activation: str, tiny: Any, plain: Any, tmp_path: Path
) -> None:
    """The exact GELU by the linear before it, where that can; any other as it was."""
    folder = shutil.copytree(tiny(kind), tmp_path / kind)
    config = json.loads((folder / "config.json").read_text())
    name = "activation" if kind == "distilbert" else "hidden_act"
    (folder / "config.json").write_text(json.dumps(config | {name: activation}))
    want = Want(layers=(1, 2, 3), pooling="none")
    _check(Model.load(str(folder), max_length=MAX_LENGTH), plain(folder), [(Instance("the cat asks"), want)])


@pytest.mark.parametrize("kind", RUNTIMES)
def test_attentions_equal_the_plain_ones(kind: str, tiny: Any, plain: Any) -> None:
    """Of the wanted layers, beside neighbours of other lengths that want none; logits as without them."""
    model, alone = Model.load(str(tiny(kind)), max_length=MAX_LENGTH), plain(tiny(kind))
    assert model.description.attention_heads == 4
    texts = ["the cat asks what it must know", "", "the teacher answers", "a dog asks"]
    encoded = model.encode([Instance(text) for text in texts])
    want = Want(layers=(3,), pooling="none", attentions=(3, 1))
    answers = model.run(encoded, [want, Want(), want, Want(logits=False, attentions=(2,))])
    for text, answer, layers in zip(texts, answers, ([3, 1], [], [3, 1], [2]), strict=True):
        assert list(answer.attentions) == layers
        for layer in layers:
            _close(answer.attentions[layer], alone.attentions(text)[layer - 1].numpy())
        if answer.logits is not None:
            _close(answer.logits, alone(text)[0].numpy())


@pytest.mark.parametrize(
    ("want", "tokens"),
    [
        (Want(), 8),  # three instances, rounded up
        (Want(layers=(0, 3)), 8),
        (Want(attentions=(3,)), 8),
        (Want(layers=(3,), pooling="mean"), 32),  # 30 tokens, rounded up
        (Want(layers=(3,), pooling="none"), 32),
    ],
)
@pytest.mark.parametrize("kind", ["bert", "distilbert", "mpnet", "roberta"])
def test_of_the_last_layer_only_what_is_wanted_is_computed(
    kind: str, want: Want, tokens: int, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = Model.load(str(tiny(kind)), max_length=MAX_LENGTH), []
    compute = PackedLayer.forward

    def watched(layer: PackedLayer, *args: Any, **kwargs: Any) -> Any:
        seen.append(len(states := compute(layer, *args, **kwargs)))
        return states

    monkeypatch.setattr(PackedLayer, "forward", watched)
    encoder = model._forward.encoder  # type: ignore[attr-defined]
    encoder.run = encoder.layers  # as TorchScript reads it, and no monkey sees
    encoded = model.encode([Instance("the cat " * count) for count in (9, 1, 2)])
    assert [one.tokens for one in encoded] == [20, 4, 6]
    model.run(encoded, [want, Want(), Want()])
    assert seen == [32, 32, tokens]


def test_an_activation_that_torchscript_cannot_read(tiny: Any, plain: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("bert"), tmp_path / "laplace")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "laplace"}))
    model, question = Model.load(str(folder), max_length=MAX_LENGTH), Instance("the cat asks")
    encoder = model._forward.encoder  # type: ignore[attr-defined]
    assert encoder.run is encoder.layers
    _check(model, plain(folder), [(question, Want(layers=(0, 3))), (Instance(""), Want())])


def _check(model: Model, alone: Callable[..., Any], questions: list[tuple[Instance, Want]]) -> None:
    asked = [instance for instance, _ in questions]
    answers = model.run(model.encode(asked), [want for _, want in questions])
    for (instance, want), answer in zip(questions, answers, strict=True):
        logits, layers = alone(instance.text, instance.text_pair)
        _check_logits(want, answer, logits.numpy())
        assert list(answer.hidden) == list(want.layers)
        for layer, got in answer.hidden.items():
            _close(got, _pool(layers[layer].numpy(), want.pooling))
        masked = want.layers and want.pooling == "none"
        assert (answer.mask is not None) == bool(masked)
        if answer.mask is not None:
            assert answer.mask.tolist() == [1] * len(layers[0])
            assert answer.mask.dtype == np.uint8


def _check_logits(want: Want, answer: Outputs, expected: Any) -> None:
    assert (answer.logits is not None) == want.logits
    if answer.logits is not None:
        assert answer.logits.dtype == np.float32
        _close(answer.logits, expected)


def _pool(states: Any, pooling: Pooling) -> Any:
    return {"cls": states[0], "mean": states.mean(0), "none": states}[pooling]


def _close(got: Any, expected: Any) -> None:
    """Within 1e-6 of the largest value there (a float32 step is 1.2e-7 of it), or of 1."""
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-6 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("kind", ["albert", "bert", "mpnet"])
def test_answers_do_not_depend_on_the_order(kind: str, tiny: Any) -> None:
    model = Model.load(str(tiny(kind)), max_length=MAX_LENGTH)
    encoded = model.encode([Instance("the cat " * count) for count in (9, 1, 4, 1, 7, 2)])
    wants = [Want(layers=(0, 3), pooling="mean")] * len(encoded)
    forth, back = model.run(encoded, wants), model.run(encoded[::-1], wants)[::-1]
    for one, other in zip(forth, back, strict=True):
        assert one.logits is not None and other.logits is not None
        np.testing.assert_allclose(one.logits, other.logits, atol=1e-6)
        np.testing.assert_allclose(one.hidden[3], other.hidden[3], atol=1e-5)


@pytest.mark.parametrize("kind", ["albert", "bert", "mpnet"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_comes_near(kind: str, dtype: Any, tiny: Any, plain: Any) -> None:
    model = Model.load(str(tiny(kind)), dtype=dtype, max_length=MAX_LENGTH)
    want = Want(layers=(3,), hidden_dtype="float16")
    (answer, _) = model.run(model.encode([Instance("the cat asks"), Instance("a")]), [want, want])
    logits, layers = plain(tiny(kind))("the cat asks")
    assert answer.logits is not None
    assert answer.logits.dtype == np.float32
    assert answer.hidden[3].dtype == np.float16
    np.testing.assert_allclose(answer.logits, logits, atol=0.15)
    np.testing.assert_allclose(answer.hidden[3], layers[3][0], atol=0.15)
    assert model.description.dtype == dtype


def test_run_leaves_no_gradient_and_no_dropout(tiny: Any) -> None:
    model = Model.load(str(tiny("bert")), max_length=MAX_LENGTH)
    encoded, want = model.encode([Instance("the cat asks")]), [Want()]
    first, second = model.run(encoded, want), model.run(encoded, want)
    assert first[0].logits is not None
    assert np.array_equal(first[0].logits, second[0].logits)
