"""A fingerprint follows what can change an answer, and nothing else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import MAX_LENGTH

from teacher_server.model import Model


def described(folder: Path, **options: Any) -> Any:
    return Model.load(str(folder), **{"max_length": MAX_LENGTH} | options).description


@pytest.fixture
def original(tiny: Any) -> Path:
    folder: Path = tiny("bert")
    return folder


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "elsewhere"))


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_copy_is_the_same_teacher(original: Path, copy: Path) -> None:
    edit_json(
        copy / "config.json", lambda config: config.update(transformers_version="4.0.0", _name_or_path="x")
    )
    one, other = described(original), described(copy, name="another name")
    assert one.fingerprint == other.fingerprint
    assert one.vocabulary_hash == other.vocabulary_hash
    assert len(one.fingerprint) == len(one.vocabulary_hash) == 64


def test_what_the_server_sets_itself_does_not_count(original: Path, copy: Path) -> None:
    padding = {
        "strategy": {"Fixed": 32},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    edit_json(copy / "tokenizer.json", lambda tokenizer: tokenizer.update(padding=padding))
    assert described(original).fingerprint == described(copy).fingerprint


@pytest.mark.parametrize(
    "options", [{"max_length": 31}, *({"dtype": other} for other in ("bfloat16", "float16", "int8"))]
)
def test_options_change_it(options: dict[str, Any], original: Path) -> None:
    changed = described(original, **options)
    assert changed.fingerprint != described(original).fingerprint
    assert changed.vocabulary_hash == described(original).vocabulary_hash


def test_one_bit_of_one_weight_changes_it(original: Path, copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    row = weights["classifier.bias"]
    row[0] = torch.nextafter(row[0], torch.tensor(1.0))
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert described(original).fingerprint != described(copy).fingerprint


def test_label_order_changes_it(original: Path, copy: Path) -> None:
    swapped = {"0": "neutral", "1": "negative", "2": "positive"}
    ids = {name: int(index) for index, name in swapped.items()}
    edit_json(copy / "config.json", lambda config: config.update(id2label=swapped, label2id=ids))
    assert described(copy).labels == ("neutral", "negative", "positive")
    assert described(original).fingerprint != described(copy).fingerprint


def test_another_activation_changes_it(original: Path, copy: Path) -> None:
    edit_json(copy / "config.json", lambda config: config.update(hidden_act="relu"))
    assert described(original).fingerprint != described(copy).fingerprint


def test_vocabulary_changes_both(original: Path, copy: Path) -> None:
    def swap(tokenizer: Any) -> None:
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary["cat"], vocabulary["dog"] = vocabulary["dog"], vocabulary["cat"]

    edit_json(copy / "tokenizer.json", swap)
    one, other = described(original), described(copy)
    assert one.fingerprint != other.fingerprint
    assert one.vocabulary_hash != other.vocabulary_hash


def test_another_architecture_shares_the_vocabulary_only(original: Path, tiny: Any) -> None:
    one, other = described(original), described(tiny("electra"))
    assert one.fingerprint != other.fingerprint
    assert one.vocabulary_hash == other.vocabulary_hash
