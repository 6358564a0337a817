"""Metrics by hand, and the evaluation of a tiny model."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from student_trainer.data import Rows, collate
from student_trainer.evaluate import evaluate, metrics, predict
from teacher_api.messages import Instance


def _logits(predicted: list[int], classes: int) -> torch.Tensor:
    return torch.eye(classes)[predicted]


def test_two_classes_by_hand() -> None:
    """TP 2, FP 1, FN 1, TN 1: accuracy 3/5; F1 4/6; Matthews (2·1 - 1·1) / sqrt(3·3·2·2) = 1/6."""
    got = metrics(_logits([1, 1, 1, 0, 0], 2), torch.tensor([1, 1, 0, 1, 0]))
    assert got == pytest.approx({"accuracy": 3 / 5, "f1": 2 / 3, "matthews": 1 / 6})


def test_three_classes_by_hand() -> None:
    """F1 per class 2/3, 0, 1: mean 5/9."""
    got = metrics(_logits([0, 0, 2], 3), torch.tensor([0, 1, 2]))
    assert got["accuracy"] == pytest.approx(2 / 3)
    assert got["f1"] == pytest.approx(5 / 9)


def test_constant_predictions() -> None:
    got = metrics(_logits([0, 0, 0, 0], 2), torch.tensor([0, 1, 0, 1]))
    assert got == {"accuracy": 0.5, "f1": 0.0, "matthews": 0.0}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_diverged_has_no_metric(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        metrics(torch.tensor([[0.0, value]]), torch.tensor([1]))


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "a": 1, "b": 2, "c": 3}, unk_token="c"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]")


@pytest.fixture
def model() -> BertForSequenceClassification:
    """With weights so large that its answers differ."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=4,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=3,
    )
    return BertForSequenceClassification(config)


INSTANCES = [Instance(text) for text in ("a b c a", "b", "c c b a b c", "a", "c", "b a", "a c c b c a a")]


def test_predict_keeps_the_order_and_the_modes(
    model: BertForSequenceClassification, tokenizer: PreTrainedTokenizerBase
) -> None:
    model.train()
    model.bert.embeddings.eval()  # a frozen part
    state = torch.get_rng_state()
    logits = predict(model, tokenizer, INSTANCES, max_length=32, batch_size=2)
    assert model.training
    assert model.bert.encoder.training
    assert not model.bert.embeddings.training
    assert torch.equal(torch.get_rng_state(), state)
    model.eval()
    alone = [model(**collate(tokenizer, [instance], 32)).logits[0] for instance in INSTANCES]
    torch.testing.assert_close(logits, torch.stack(alone).detach(), atol=1e-6, rtol=0)
    assert not logits.requires_grad


def test_modes_are_restored_after_an_error(
    model: BertForSequenceClassification, tokenizer: PreTrainedTokenizerBase
) -> None:
    model.train()
    with pytest.raises(ValueError, match="token ids"):
        predict(model, tokenizer, [Instance(token_ids=(1,))], max_length=8, batch_size=1)
    assert model.training


def test_evaluate_counts_the_right_labels(
    model: BertForSequenceClassification, tokenizer: PreTrainedTokenizerBase
) -> None:
    answers = predict(model, tokenizer, INSTANCES, 32, 2).argmax(-1).tolist()
    assert len(set(answers)) > 1
    assert evaluate(model, tokenizer, Rows(INSTANCES, answers), 32, 2)["accuracy"] == 1
    wrong = [(answer + 1) % 3 for answer in answers[:2]] + answers[2:]
    assert evaluate(model, tokenizer, Rows(INSTANCES, wrong), 32, 3)["accuracy"] == pytest.approx(5 / 7)


@pytest.mark.parametrize("labels", [None, [0, 1, 0, 1, 0, 1, -1]])
def test_unlabelled_rows_are_not_evaluated(
    model: BertForSequenceClassification, tokenizer: PreTrainedTokenizerBase, labels: list[int] | None
) -> None:
    with pytest.raises(ValueError, match="have a label"):
        evaluate(model, tokenizer, Rows(INSTANCES, labels), 32, 2)
