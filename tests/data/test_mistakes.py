"""Each mistake is told with its place, its value and its remedy."""

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
from task_rows import FOUR, write_jsonl

from student_trainer.data import DataError, DataSettings, TaskData, load

GOOD = "".join(json.dumps(row) + "\n" for row in FOUR)
PAIR = {"text": "a", "text_pair": "b", "label": 0}

MISTAKES: dict[str, tuple[dict[str, str], dict[str, object], list[str]]] = {
    # what is wrong -> files beside or in place of the good ones, settings, what the error says
    "no split": (
        {"train.jsonl": "", "other.jsonl": GOOD},
        {"train_split": "trian"},
        ["'trian'", "other.jsonl", "`train_split`"],
    ),
    "no rows": ({"train.jsonl": "\n"}, {}, ["train of", "no rows"]),
    "header only": ({"train.jsonl": "", "t.tsv": "text\tlabel\n"}, {"train_split": "t"}, ["t of", "no rows"]),
    "no text column": ({"train.jsonl": '{"body": "x"}\n'}, {}, ["line 1", "'body'", "`text_column`"]),
    "named column": ({}, {"text_column": "body"}, ["no column 'body'", "'text', 'label'", "`text_column`"]),
    "named pair": ({}, {"pair_column": "b"}, ["no column 'b'", "`pair_column`"]),
    "named label": (
        {},
        {"label_column": "y"},
        ["validation.jsonl, line 1", "no label (y)", "`label_column`"],
    ),
    "null text": (
        {"train.jsonl": GOOD + '{"text": null}\n'},
        {},
        ["train.jsonl, line 5", "'text'", "None", "correct"],
    ),
    "number as text": ({"train.jsonl": GOOD + '{"text": 7}\n'}, {}, ["line 5", "'text'", "7 is not a text"]),
    "text left out": (
        {"train.jsonl": GOOD + '{"label": 0}\n'},
        {},
        ["line 5", "'text'", "None is not a text"],
    ),
    "half surrogate": ({"train.jsonl": '{"text": "\\ud800"}\n'}, {}, ["line 1", "surrogate", "replace"]),
    "null pair": (
        {"train.jsonl": json.dumps(PAIR) + "\n" + json.dumps(PAIR | {"text_pair": None}) + "\n"},
        {},
        ["line 2", "'text_pair'", "`pair_column: null`"],
    ),
    "late pair": (
        {"train.jsonl": GOOD + json.dumps(PAIR)},
        {},
        ["train.jsonl, line 5", "a pair, after rows"],
    ),
    "half paired": ({"train.jsonl": json.dumps(PAIR)}, {}, ["train of", "validation of", "`pair_column`"]),
    "unlabelled validation": (
        {"validation.jsonl": GOOD + '\n{"text": "x", "label": -1}\n'},
        {},
        ["line 6", "no label"],
    ),
    "fraction": (
        {"train.jsonl": '{"text": "x", "label": 0.5}\n'},
        {},
        ["line 1", "'label'", "0.5", "whole number"],
    ),
    "list as label": ({"train.jsonl": '{"text": "x", "label": [1]}\n'}, {}, ["line 1", "'label'", "[1]"]),
    "label outside": (
        {"validation.jsonl": GOOD + '{"text": "x", "label": "maybe"}\n'},
        {"label_names": ["0", "1"]},
        ["validation.jsonl, line 5", "'maybe'", "0, 1", "label_names"],
    ),
    "few names": (
        {"train.jsonl": GOOD + '{"text": "x", "label": 2}\n'},
        {"label_names": ["bad", "good"]},
        ["train.jsonl, line 5", "'2'", "2 classes (bad, good)", "label_names"],
    ),
    "one name": ({}, {"label_names": ["bad"]}, ["label_names", "['bad']", "two or more"]),
    "name twice": ({}, {"label_names": ["a", "b", "a"]}, ["label_names", "each once"]),
    "gap": ({"train.jsonl": GOOD + '{"text": "x", "label": 5}\n'}, {}, ["['0', '1', '5']", "label_names"]),
    "single class": (
        {"train.jsonl": '{"text": "x", "label": 1}\n' * 3},
        {},
        ["train of", "every label is '1'"],
    ),
    "only a class of no place": (
        dict.fromkeys(("train.jsonl", "validation.jsonl"), '{"text": "x", "label": 1}\n' * 3),
        {},
        ["train of", "every label is '1'"],
    ),
    "quick look at one class": ({}, {"max_rows": 1}, ["every label is '0'", "max_rows"]),
    "broken line": ({"train.jsonl": GOOD + '{"text": "x"\n'}, {}, ["train.jsonl, line 5", "broken JSON"]),
    "not an object": ({"train.jsonl": GOOD + '["x", 1]\n'}, {}, ["line 5", "not an object"]),
    "not UTF-8": ({"train.jsonl": GOOD + "\udce9"}, {}, ["train.jsonl, line 5", "not UTF-8"]),
    "fields": (
        {"train.jsonl": "", "t.tsv": "text\tlabel\na\t1\nb\n"},
        {"train_split": "t"},
        ["t.tsv, line 3", "1 fields"],
    ),
    "open quote": ({"t.csv": 'text,label\n"a,1\n'}, {"train_split": "t"}, ["t.csv", "quote"]),
    "no parquet": ({"t.parquet": "PAR1"}, {"train_split": "t"}, ["t.parquet", "Parquet"]),
    "two formats": ({"train.tsv": "text\tlabel\n"}, {}, ["train.jsonl or train.tsv", "keep one"]),
    "lost shard": (
        {"t-00000-of-00002.jsonl": GOOD},
        {"train_split": "t"},
        ["t-00000-of-00002.jsonl", "1 of 2", "add"],
    ),
    "labels.json": ({"labels.json": '{"0": "a"}'}, {}, ["labels.json", "list of the class names"]),
    "labels.txt": ({"labels.txt": "a\n\nb\n"}, {}, ["labels.txt", "list of the class names"]),
    "subset": ({}, {"subset": "mrpc"}, ["'mrpc'", "subset"]),
}


@pytest.mark.parametrize(("files", "settings", "says"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(
    folder: Path,
    loaded: Callable[..., TaskData],
    files: dict[str, str],
    settings: dict[str, object],
    says: list[str],
) -> None:
    for name, text in ({"train.jsonl": GOOD, "validation.jsonl": GOOD} | files).items():
        (folder / name).write_text(text, "utf-8", errors="surrogateescape")
    with pytest.raises(DataError) as raised:
        loaded(**settings)
    for part in says:
        assert part in str(raised.value)


@pytest.mark.parametrize(("path", "says"), [("./nowhere", "no folder"), ("glue", "hub is out of reach")])
def test_no_such_data(path: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        load(DataSettings(data=path))


def test_hub_splits_are_listed(folder: Path, loaded: Callable[..., TaskData]) -> None:
    write_jsonl(folder / "a.jsonl", FOUR)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: learn, path: a.jsonl}\n---\n"
    )
    with pytest.raises(DataError, match="no split 'train'; there is learn"):
        loaded()


def test_no_place_for_copies(
    folder: Path, loaded: Callable[..., TaskData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file")
    write_jsonl(folder / "train.jsonl", FOUR)
    write_jsonl(folder / "validation.jsonl", FOUR)
    with pytest.raises(DataError, match="HF_DATASETS_CACHE"):
        loaded()


def test_every_setting_is_described() -> None:
    assert all(field.description for field in DataSettings.model_fields.values())
