"""What cannot be served is refused with the reason; what can is described fully."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import LABELS, MINILM, make_tokenizer, save
from transformers import AutoModel

from teacher_server.model import Model, ModelError


def test_description_names_everything(tiny: Any) -> None:
    model = Model.load(str(tiny("distilbert")), max_length=48, threads=torch.get_num_threads())
    described = model.description
    assert described.name == "distilbert"
    assert described.labels == LABELS
    assert (described.layers, described.hidden_size, described.intermediate_size) == (3, 32, 64)
    assert (described.max_length, described.dtype) == (48, "float32")
    tensors = load_file(tiny("distilbert") / "model.safetensors")
    assert described.parameters == sum(tensor.numel() for tensor in tensors.values())
    assert Model.load(str(tiny("distilbert")), max_length=48, name="mine").description.name == "mine"


def test_labels_beyond_ten_keep_the_order_of_the_logits(tmp_path: Path) -> None:
    folder = save(tmp_path / "many", "bert", labels=tuple(f"class {number}" for number in range(12)))
    assert Model.load(str(folder), max_length=32).description.labels[9:] == (
        "class 9",
        "class 10",
        "class 11",
    )


def test_regression_has_one_label(tmp_path: Path) -> None:
    folder = save(tmp_path / "score", "bert", labels=("score",))
    assert Model.load(str(folder), max_length=32).description.labels == ("score",)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model can be read"):
        Model.load(str(tmp_path / "absent"))


def test_encoder_without_a_head_is_refused() -> None:
    with pytest.raises(ModelError, match=r"not a fine-tuned classifier.*classifier\.bias"):
        Model.load(str(MINILM))


def test_missing_pooler_is_refused(tiny: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny("bert"), tmp_path / "bert"))
    AutoModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(folder)
    with pytest.raises(ModelError, match="pooler"):
        Model.load(str(folder), max_length=32)


def test_pickled_weights_are_refused(tiny: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny("bert"), tmp_path / "bert"))
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(ModelError, match=r"only pickled ones \(pytorch_model\.bin\)"):
        Model.load(str(folder))


@pytest.mark.parametrize("kept", [0, 4, 1000])
def test_torn_weights_are_refused(kept: int, tiny: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny("bert"), tmp_path / "bert"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ModelError, match="cannot be served"):
        Model.load(str(folder))


def test_weights_of_another_shape_are_refused(tiny: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny("bert"), tmp_path / "bert"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 96}))
    with pytest.raises(ModelError, match="cannot be served"):
        Model.load(str(folder))


def test_code_beside_the_weights_never_runs(tiny: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny("bert"), tmp_path / "bert"))
    ran = tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    (folder / "config.json").write_text(json.dumps(config | own))
    with pytest.raises(ModelError):
        Model.load(str(folder))
    assert not ran.exists()


def test_missing_tokenizer_is_refused(tiny: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny("bert"), tmp_path / "bert"))
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match="no tokenizer"):
        Model.load(str(folder), max_length=32)


def test_tokenizer_of_another_model_is_refused(tiny: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny("bert"), tmp_path / "bert"))
    make_tokenizer("bert", extra=("zebra",)).save_pretrained(folder)
    with pytest.raises(ModelError, match="has 19 ids, the model 18"):
        Model.load(str(folder), max_length=32)


def test_absent_device_is_refused(tiny: Any) -> None:
    with pytest.raises(ModelError, match="'cuda:99' is not available"):
        Model.load(str(tiny("bert")), device="cuda:99")


# RoBERTa and MPNet count positions from behind the padding id, so two of the 64 are never used.
@pytest.mark.parametrize(
    ("kind", "limit"), [("bert", 64), ("roberta", 62), ("mpnet", 62), ("distilbert", 64)]
)
def test_max_length_is_bounded_by_the_positions(kind: str, limit: int, tiny: Any) -> None:
    with pytest.raises(
        ModelError, match=f"max_length {limit + 1} is more than the model's {limit} positions"
    ):
        Model.load(str(tiny(kind)), max_length=limit + 1)
    assert Model.load(str(tiny(kind)), max_length=limit).description.max_length == limit


def test_max_length_must_hold_a_pair(tiny: Any) -> None:
    with pytest.raises(ModelError, match="a pair has 3 special tokens"):
        Model.load(str(tiny("bert")), max_length=3)
