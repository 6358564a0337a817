"""A student without padding: the same values and gradients as with it, and the same files."""

import copy
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_models import LABELS
from torch import Tensor
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from student_trainer import student as students
from student_trainer.config import DistillSettings
from student_trainer.data import collate
from student_trainer.evaluate import pooled
from student_trainer.learner import Learner
from student_trainer.padding import skip_padding
from teacher_api.messages import Instance

KINDS = ("bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta")
PADDED_STILL = ("deberta-v2", "mpnet")
TEXTS = ("cat", "the dog asks only what it must know", "", "a student answers", "the cat <pad> asks it")
SINGLES = [Instance(text) for text in TEXTS]
PAIRS = [Instance(text, text[::2]) for text in TEXTS]
SETTINGS = DistillSettings(data="d", output="o", student="s", teacher="local:t", cpu=True)
Load = Callable[[str], tuple[PreTrainedModel, PreTrainedTokenizerBase]]


@pytest.fixture
def load(tiny: Callable[[str], Path]) -> Load:
    """kind -> a tiny classifier in train mode without dropout, and its tokenizer."""

    def loaded(kind: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        model, tokenizer = students.load(str(tiny(kind)), LABELS, None, 0)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        return model.train(), tokenizer

    return loaded


def measured(model: PreTrainedModel, batch: BatchEncoding) -> dict[str, Tensor]:
    """Logits, pooled states of every layer, and each parameter's gradient of something made of them all."""
    model.zero_grad()
    output = model(**batch, output_hidden_states=True)
    values = {
        f"{pooling} {layer}": pooled(states, batch, pooling)
        for pooling in ("cls", "mean")
        for layer, states in enumerate(output.hidden_states)
    } | {"logits": output.logits}
    # Means of a normalised layer over its width are constant: cubes are not.
    sum((value**3).sum() for value in values.values()).backward()
    values |= {name: own.grad for name, own in model.named_parameters() if own.grad is not None}
    return {name: value.detach().clone() for name, value in values.items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Within 1e-5 of the largest value there, or of 1."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        limit = 1e-5 * max(1, value.abs().max().item())
        torch.testing.assert_close(
            found[name], value, atol=limit, rtol=0, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("instances", [SINGLES, PAIRS, SINGLES[:1], SINGLES[1:2] * 3])
@pytest.mark.parametrize("kind", [*KINDS, *PADDED_STILL])
def test_values_and_gradients_are_those_of_padding(kind: str, instances: list[Instance], load: Load) -> None:
    model, tokenizer = load(kind)
    batch = collate(tokenizer, instances, 24)
    expected = measured(model, batch)
    assert skip_padding(model) == (kind in KINDS)
    assert_same(measured(model, batch), expected)
    if len(instances) == len(TEXTS):  # another order of the batch changes nothing but the order
        order = [3, 0, 4, 2, 1]
        other = collate(tokenizer, [instances[place] for place in order], 24)
        assert_same({"logits": measured(model, other)["logits"]}, {"logits": expected["logits"][order]})


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_not_computed(kind: str, load: Load) -> None:
    model, tokenizer = load(kind)
    seen = []
    wide = next(
        module for name, module in model.named_modules() if name.endswith((".output.dense", ".ffn.lin2"))
    )
    wide.register_forward_hook(lambda module, args, output: seen.append(tuple(output.shape[:-1])))
    skip_padding(model)
    batch = collate(tokenizer, SINGLES, 24)
    model(**batch)
    assert seen == [(1, int(batch["attention_mask"].sum()))]


def test_dropout_is_drawn_within_attention_too(load: Load) -> None:
    model, tokenizer = load("bert")
    skip_padding(model)
    batch = collate(tokenizer, SINGLES, 24)
    assert torch.equal(model(**batch).logits, model(**batch).logits)
    for layer in model.bert.encoder.layer:
        layer.attention.self.dropout.p = 0.5
    one, other = model(**batch).logits, model(**batch).logits
    assert ((one - other).abs() > 1e-4).any(-1).all()
    assert torch.equal(model.eval()(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_nothing_of_it_is_saved(kind: str, load: Load, tmp_path: Path) -> None:
    model, tokenizer = load(kind)
    batch = collate(tokenizer, SINGLES, 24)  # a tokenizer remembers how it was last called
    students.save(copy.deepcopy(model), tokenizer, tmp_path / "before")
    skip_padding(model)
    model(**batch, output_hidden_states=True)
    students.save(model, tokenizer, tmp_path / "after")
    files = {path.name for path in (tmp_path / "before").iterdir()}
    assert files == {path.name for path in (tmp_path / "after").iterdir()}
    for name in files:
        assert (tmp_path / "before" / name).read_bytes() == (tmp_path / "after" / name).read_bytes()


def test_a_learner_on_a_cpu_skips_padding(load: Load) -> None:
    plain, tokenizer = load("bert")
    learner = Learner(copy.deepcopy(plain), tokenizer, SETTINGS, total_steps=1)
    told = learner.predictions(SINGLES, [0, 2, 3], "mean")
    batch = collate(tokenizer, SINGLES, 24)
    expected = plain(**batch, output_hidden_states=True)
    torch.testing.assert_close(told.logits, expected.logits, atol=1e-5, rtol=0)
    for layer, states in told.states.items():
        torch.testing.assert_close(
            states, pooled(expected.hidden_states[layer], batch, "mean"), atol=1e-5, rtol=0
        )
    torch.testing.assert_close(learner.scores(SINGLES, dropout=False), told.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(learner.survey(SINGLES), told.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(learner.vectors(SINGLES), told.states[3], atol=1e-5, rtol=0)
    assert learner.model.config._attn_implementation != plain.config._attn_implementation


def test_memory_as_large_as_the_embeddings_gradient_is_used_again(load: Load) -> None:
    model, tokenizer = load("bert")
    Learner(model, tokenizer, SETTINGS, total_steps=1)
    faults = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(12_000_000)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert faults[-1] < 1000  # of 11,719 pages
