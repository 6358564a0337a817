"""Each format and layout gives the same rows."""

import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from task_rows import FOUR, write_jsonl

from student_trainer.data import DataSettings, TaskData, load
from teacher_api.messages import Instance

ROWS = [
    {"text": 'He said "no", twice', "label": 1},
    {"text": "NULL", "label": 0},
    {"text": "  ça\u2028va ", "label": 1},
    {"text": "None", "label": 0},
]


def _delimited(rows: list[dict[str, object]], delimiter: str, quoting: int) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["text", "label"], delimiter=delimiter, quoting=quoting, quotechar='"')
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _tsv(rows: list[dict[str, object]]) -> str:
    return "text\tlabel\n" + "".join(f"{row['text']}\t{row['label']}\n" for row in rows)


def _write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
        return
    text = {
        ".jsonl": lambda: "".join(json.dumps(row) + "\n" for row in ROWS),
        ".json": lambda: json.dumps(ROWS, indent=1),
        ".csv": lambda: _delimited(ROWS, ",", csv.QUOTE_MINIMAL),
        ".tsv": lambda: _tsv(ROWS),
    }[path.suffix]()
    path.write_text(text, "utf-8", newline="")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize(
    ("train", "validation"),
    [
        ("train", "validation"),
        ("train-00000-of-00001", "dev"),
        ("train/part", "val"),
        ("data/train-00000-of-00001", "data/validation-00000-of-00001"),
    ],
)
def test_every_format_in_every_layout(
    folder: Path, loaded: Callable[..., TaskData], suffix: str, train: str, validation: str
) -> None:
    for stem in (train, validation):
        _write(folder / (stem + suffix))
    task = loaded()
    assert task.label_names == ("0", "1")
    for rows in (task.train, task.validation):
        assert list(rows.instances) == [Instance(row["text"]) for row in ROWS]
        assert rows.labels == [1, 0, 1, 0]
        assert len(rows) == 4


def test_shards_are_read_in_order_and_max_rows_cuts_train_only(
    folder: Path, loaded: Callable[..., TaskData]
) -> None:
    for shard in range(3):
        rows = [{"text": f"{shard}{name}", "label": name} for name in "ab"]
        write_jsonl(folder / f"train-0000{shard}-of-00003.jsonl", rows)
    write_jsonl(folder / "validation.jsonl", [{"text": name, "label": name} for name in "abc"])
    assert [i.text for i in loaded().train.instances] == ["0a", "0b", "1a", "1b", "2a", "2b"]
    quick = loaded(max_rows=3)
    assert [i.text for i in quick.train.instances] == ["0a", "0b", "1a"]
    assert quick.train.labels == [0, 1, 0]
    assert len(quick.validation) == 3


def test_instances_index_from_both_ends_and_slice(folder: Path, loaded: Callable[..., TaskData]) -> None:
    for split in ("train", "validation"):
        write_jsonl(folder / f"{split}.jsonl", [{"text": str(i), "label": i % 2} for i in range(10)])
    instances = loaded().train.instances
    assert instances[-1].text == "9"
    assert [i.text for i in instances[2:8:3]] == ["2", "5"]
    assert [i.text for i in instances[2:8][::-2]] == ["7", "5", "3"]
    assert list(instances[20:]) == []
    with pytest.raises(IndexError):
        instances[10]


def test_a_changed_file_is_read_again_and_its_folder_stays_clean(
    folder: Path, loaded: Callable[..., TaskData], cache: Path
) -> None:
    for split in ("train", "validation"):
        write_jsonl(folder / f"{split}.jsonl", FOUR)
    assert len(loaded().train) == 4
    copies = sorted(cache.rglob("*.arrow"))
    assert loaded().train.labels == [0, 1, 0, 1]
    assert sorted(cache.rglob("*.arrow")) == copies  # the same files: the same copies
    write_jsonl(folder / "train.jsonl", [{"text": "gray", "label": 0}, {"text": "pink", "label": 1}] * 2)
    os.utime(folder / "train.jsonl", ns=(1, 1))
    assert loaded().train.instances[0].text == "gray"
    assert sorted(path.name for path in folder.iterdir()) == ["train.jsonl", "validation.jsonl"]


@pytest.mark.parametrize("card", [True, False], ids=["configs", "shards"])
def test_hub_layout(folder: Path, loaded: Callable[..., TaskData], card: bool) -> None:
    features = datasets.Features(
        sentence1=datasets.Value("string"),
        sentence2=datasets.Value("string"),
        label=datasets.ClassLabel(names=["no", "yes"]),
    )
    rows = [{"sentence1": "a", "sentence2": "b", "label": value} for value in (1, 0, -1)]
    base = folder / "mrpc" if card else folder / "data"
    base.mkdir()
    for split, chosen in (("train", rows), ("validation", rows[:2])):
        table = datasets.Dataset.from_list(chosen, features=features)
        pq.write_table(table.data.table, base / f"{split}-00000-of-00001.parquet")
    if card:
        config = "configs:\n- config_name: mrpc\n  data_files:\n"
        files = [f"  - {{split: {split}, path: mrpc/{split}-*}}\n" for split in ("train", "validation")]
        (folder / "README.md").write_text(f"---\n{config}{''.join(files)}---\n# A task\n")
    task = loaded(subset="mrpc") if card else loaded()
    assert task.label_names == ("no", "yes")
    assert task.train.labels == [1, 0, -1]
    assert task.validation.labels == [1, 0]
    assert task.validation.instances[0] == Instance("a", "b")
    assert (loaded(subset="mrpc", label_names=["yes", "no"]) if card else task).validation.labels == (
        [0, 1] if card else [1, 0]
    )


SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.parametrize(
    ("name", "validation", "counts", "classes", "paired"),
    [
        ("sst5", "validation", (8544, 1101), 5, False),
        ("mrpc", "validation", (3668, 408), 2, True),
        ("trec6", "test", (5452, 500), 6, False),
        ("cola", "validation", (8551, 1043), 2, False),
        ("mnli", "validation", (12988, 9815), 3, True),
    ],
)
def test_real_tasks(name: str, validation: str, counts: tuple[int, int], classes: int, paired: bool) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip("the task's folder is not in ../shared/data")
    task = load(DataSettings(data=str(SHARED / name), validation_split=validation))
    assert (len(task.train), len(task.validation)) == counts
    assert len(task.label_names) == classes
    assert set(task.train.labels or ()) == set(range(classes))
    assert (task.train.instances[0].text_pair is not None) is paired
    with (SHARED / name / "train.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert task.train.labels == [row["label"] for row in rows]
    assert task.train.instances[-1] == Instance(rows[-1]["text"], rows[-1].get("text_pair"))
