"""Which columns are read, what the classes are called, which rows are unlabelled; GLUE's own files."""

from collections.abc import Callable
from pathlib import Path

import pytest
from task_rows import FOUR, write_jsonl

from student_trainer.data import TaskData
from teacher_api.messages import Instance

MNLI = "index\tgenre\tsentence1_parse\tsentence1\tsentence2\tlabel1\tgold_label"
GLUE = [
    (
        "mrpc",
        "dev",
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        ['1\t7\t8\tA "b\tC', "0\t9\t5\tD\tE"],
        Instance('A "b', "C"),
        ("0", "1"),
        [1, 0],
    ),
    ("cola", "dev", "gj04\t1\t\tFine.", ["gj04\t0\t*\tNot fine."], Instance("Fine."), ("0", "1"), [1, 0]),
    (
        "mnli",
        "dev_matched",
        MNLI,
        ["0\tx\t(p)\tP\tH\tneutral\tentailment", "1\tx\t(p)\tP\tH\tneutral\tneutral"],
        Instance("P", "H"),
        ("entailment", "neutral"),
        [0, 1],
    ),
    (
        "qnli",
        "dev",
        "index\tquestion\tsentence\tlabel",
        ["0\tQ?\tS.\tentailment", "1\tQ?\tS.\tnot_entailment"],
        Instance("Q?", "S."),
        ("entailment", "not_entailment"),
        [0, 1],
    ),
    (
        "qqp",
        "dev",
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        ["0\t1\t2\tA\tB\t0", "1\t1\t2\tA\tB\t1"],
        Instance("A", "B"),
        ("0", "1"),
        [0, 1],
    ),
    ("sst2", "dev", "sentence\tlabel", ["good \t1", "bad \t0"], Instance("good "), ("0", "1"), [1, 0]),
]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("task", GLUE, ids=[task[0] for task in GLUE])
def test_glue_files_as_they_are(
    folder: Path, loaded: Callable[..., TaskData], task: tuple[object, ...], line_end: str
) -> None:
    _, dev, header, lines, first, label_names, labels = task
    for split in ("train", str(dev)):
        text = line_end.join([str(header), *lines]) + line_end  # type: ignore[misc]
        (folder / f"{split}.tsv").write_text(text, "utf-8", newline="")
    got = loaded()
    assert got.validation.instances[0] == first
    assert got.label_names == label_names
    assert got.validation.labels == got.train.labels == labels


def _both(
    folder: Path, train: list[dict[str, object]], validation: list[dict[str, object]] | None = None
) -> None:
    write_jsonl(folder / "train.jsonl", train)
    write_jsonl(folder / "validation.jsonl", train if validation is None else validation)


def test_unlabelled_rows_of_train(folder: Path, loaded: Callable[..., TaskData]) -> None:
    unlabelled = [
        {"text": "a"},
        {"text": "b", "label": None},
        {"text": "c", "label": -1},
        {"text": "d", "label": "-"},
    ]
    _both(folder, [*unlabelled, *FOUR], FOUR)
    assert loaded().train.labels == [-1, -1, -1, -1, 0, 1, 0, 1]
    _both(folder, unlabelled, FOUR)
    assert loaded().train.labels is None
    _both(folder, [{"text": "a"}], FOUR)
    assert loaded().train.labels is None
    assert loaded().label_names == ("0", "1")


@pytest.mark.parametrize(
    ("values", "names", "want_names", "want_ids"),
    [
        ([0, 1, 2], None, ("0", "1", "2"), [0, 1, 2]),
        ([0, "1", 2.0], None, ("0", "1", "2"), [0, 1, 2]),
        ([False, True], None, ("0", "1"), [0, 1]),
        (list(range(11)), None, tuple(map(str, range(11))), list(range(11))),
        (["pos", "neg"], None, ("neg", "pos"), [1, 0]),
        (["pos", "neg"], ["pos", "neg"], ("pos", "neg"), [0, 1]),
        ([1, 0], ["bad", "good", "unseen"], ("bad", "good", "unseen"), [1, 0]),
        ([1, 2, 3], ["1", "2", "3"], ("1", "2", "3"), [0, 1, 2]),  # names that are numbers
        ([0, 1, 2], ["3", "1", "0"], ("3", "1", "0"), [0, 1, 2]),  # 2 is no name, so all are ids
    ],
)
def test_names_and_ids(
    folder: Path,
    loaded: Callable[..., TaskData],
    values: list[object],
    names: list[str] | None,
    want_names: tuple[str, ...],
    want_ids: list[int],
) -> None:
    _both(folder, [{"text": "x", "label": value} for value in values])
    task = loaded(label_names=names)
    assert task.label_names == want_names
    assert task.train.labels == want_ids


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("labels.txt", "bad\ngood\n"),
        ("labels.json", '["bad", "good"]'),
        ("dataset_info.json", '{"features": {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}}}'),
    ],
)
def test_names_beside_the_rows(folder: Path, loaded: Callable[..., TaskData], file: str, text: str) -> None:
    _both(folder, FOUR)
    (folder / file).write_text(text)
    assert loaded().label_names == ("bad", "good")
    assert loaded(label_names=["x", "y"]).label_names == ("x", "y")  # the settings win
    assert loaded().validation.labels == [0, 1, 0, 1]


def test_columns_by_name(folder: Path, loaded: Callable[..., TaskData]) -> None:
    _both(
        folder, [{"a": "A", "b": "B", "text": "T", "text_pair": "P", "y": i, "label": "no"} for i in (0, 1)]
    )
    named = loaded(text_column="a", pair_column="b", label_column="y")
    assert named.train.instances[0] == Instance("A", "B")
    assert named.train.labels == [0, 1]
    assert loaded(text_column="a", label_column="y").train.instances[0] == Instance("A")
    assert loaded(pair_column=None, label_column="y").train.instances[0] == Instance("T")
    assert loaded(pair_column="b", label_column="y").train.instances[0] == Instance("T", "B")
    assert loaded(label_column="y").train.instances[0] == Instance("T", "P")
