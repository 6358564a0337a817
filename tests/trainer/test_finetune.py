"""`student-trainer finetune`: a plain Hugging Face folder that has learnt its task."""

from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_task import LABELS
from trainers import result_of
from transformers import AutoModelForSequenceClassification, AutoTokenizer


def test_the_folder_is_hugging_faces_own_and_its_labels_have_names(finetuned: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(finetuned / "model")
    tokenizer = AutoTokenizer.from_pretrained(finetuned / "model")
    assert model.config.id2label == dict(enumerate(LABELS))
    assert model.config.label2id == {name: number for number, name in enumerate(LABELS)}
    model.train(False)
    with torch.inference_mode():
        batch = tokenizer(["aa great fine bor", "aa awful dull bor"], return_tensors="pt")
        assert model(**batch).logits.argmax(-1).tolist() == [2, 0]


def test_it_has_learnt_and_says_what_it_came_to(finetuned: Path) -> None:
    result = result_of(finetuned)
    assert result["scores"]["accuracy"] > 0.9
    assert result["strategy"] == "none"
    assert (result["steps"], result["stopped"]) == (120, False)
    assert result["questions"]["seen"] == 120 * 16
    assert result["questions"]["asked"] == result["questions"]["charged"] == 0
    assert result["usd"]["full"] is None
    assert not list(finetuned.glob("checkpoint-*"))


def test_its_scalars_are_on_disk(finetuned: Path) -> None:
    events = EventAccumulator(str(finetuned / "scalars"))
    events.Reload()
    losses = events.Scalars("loss")
    assert [event.step for event in losses] == list(range(120))
    assert losses[-1].value < losses[0].value / 2
    rates = [event.value for event in events.Scalars("learning_rate")]
    assert rates[0] == 0
    assert max(rates) == pytest.approx(2e-3)
    assert rates.index(max(rates)) == 12  # a tenth of the steps
