"""student-trainer augment, whole: what it writes, what that depends on, what it refuses."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from word_groups import GROUPS

from student_trainer.__main__ import main
from student_trainer.augment import command
from student_trainer.augment.seen import Seen
from student_trainer.data import DataSettings, load
from teacher_api.messages import Instance

WORDS = ("film", "funny", "boy", "ran", "movie", "witty", "girl", "went")
WriteTask = Callable[..., Path]


def sentences(count: int) -> list[str]:
    """All different: of three words with neighbours, behind a number."""
    return [
        f"No. {i}: the {WORDS[i % 8]} and {WORDS[i // 8 % 8]}, a {WORDS[i // 64 % 8]}" for i in range(count)
    ]


def labelled(texts: list[str]) -> list[dict[str, object]]:
    return [{"text": text, "label": ("good", "bad")[i % 2]} for i, text in enumerate(texts)]


def augment(data: Path, output: Path, *flags: object) -> list[dict[str, str]]:
    main(["augment", "--data", str(data), "--output", str(output), *map(str, flags)])
    return rows_of(output)


def rows_of(output: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (output / "train.jsonl").read_text("utf-8").splitlines()]


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as left:
        augment(*arguments)  # type: ignore[arg-type]
    assert left.value.code == 2
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    return shown.partition("refused: ")[2].strip()


def test_a_task_with_more_rows(task: WriteTask, glove: Path, tmp_path: Path, capsys) -> None:
    data = task(labelled(sentences(300)))
    rows = augment(data, tmp_path / "more", "--word-vectors", glove, "--times", 5)
    source, loaded = load(DataSettings(data=str(data))), load(DataSettings(data=str(tmp_path / "more")))
    assert len({row["text"] for row in rows}) == len(rows)
    place = {row["text"]: number for number, row in enumerate(rows)}
    starts = [place[instance.text] for instance in source.train.instances]
    assert starts == sorted(starts)  # every row of the source, in their order
    for row in rows:
        number = int(row["text"].split(":")[0].removeprefix("No. "))
        assert row["label"] == ("good", "bad")[number % 2]
        assert place[row["text"]] >= starts[number]
    assert (loaded.label_names, len(loaded.train)) == (source.label_names, len(rows))
    assert list(loaded.validation.instances) == list(source.validation.instances)
    assert loaded.validation.labels == source.validation.labels
    shown = " ".join(capsys.readouterr().err.split())
    assert f"{len(rows):,} rows out of 300, {1800 - len(rows):,} duplicates dropped, " in shown
    assert "rows per second go on with: student-trainer distill --data" in shown


def test_at_probability_one_every_word_with_neighbours_goes(
    task: WriteTask, glove: Path, tmp_path: Path
) -> None:
    texts = sentences(64)
    flags = ("--word-vectors", glove, "--candidates", 3, "--probability", 1)
    rows = augment(task(labelled(texts)), tmp_path / "more", *flags)
    group = {word: number for number, words in enumerate(GROUPS) for word in words}
    for row in rows:
        number = int(row["text"].split(":")[0].removeprefix("No. "))
        words, before = (text.replace(",", " ,").split() for text in (row["text"], texts[number]))
        for word, was in zip(words, before, strict=True):
            if was in group and words != before:
                assert word != was
                assert group[word] == group[was]
            else:
                assert word == was
    assert len(rows) > 64 * 10


def test_label_names_and_their_order_are_kept(task: WriteTask, glove: Path, tmp_path: Path) -> None:
    rows = [{"text": text, "label": i % 2} for i, text in enumerate(sentences(4))]
    data = task([*rows, {"text": "unlabelled film"}], [{"text": "a", "label": 1}, {"text": "b", "label": 0}])
    (data / "labels.txt").write_text("worse\nbetter\n")
    written = augment(data, tmp_path / "more", "--word-vectors", glove)
    loaded = load(DataSettings(data=str(tmp_path / "more")))
    assert loaded.label_names == ("worse", "better")
    assert loaded.validation.labels == [1, 0]
    unlabelled = [row for row in written if row["text"].startswith("unlabelled")]
    assert len(unlabelled) > 3
    assert all("label" not in row for row in unlabelled)
    assert all("label" in row for row in written if row not in unlabelled)
    dropped = augment(data, tmp_path / "dropped", "--word-vectors", glove, "--labels", "drop")
    assert dropped == [{"text": row["text"]} for row in written]
    assert load(DataSettings(data=str(tmp_path / "dropped"))).train.labels is None


def test_pairs(task: WriteTask, glove: Path, tmp_path: Path) -> None:
    texts = sentences(60)
    pairs = [(one, other) for one, other in zip(texts, reversed(texts), strict=True)]
    data = task([{"text": one, "text_pair": other, "label": i % 2} for i, (one, other) in enumerate(pairs)])
    rows = augment(data, tmp_path / "more", "--word-vectors", glove, "--times", 10)
    kept = Counter()
    for row in rows:
        first, second = pairs[int(row["text"].split(":")[0].removeprefix("No. "))]
        kept[row["text"] == first, row["text_pair"] == second] += 1
    assert kept[True, True] == 60
    assert kept[False, False] == 0
    assert min(kept[True, False], kept[False, True]) > 100
    assert load(DataSettings(data=str(tmp_path / "more"))).train.instances[0] == Instance(*pairs[0])


def test_duplicates_are_dropped_never_a_row_of_the_source(
    task: WriteTask, glove: Path, tmp_path: Path, capsys
) -> None:
    """The fourth row is a variant of the first; a text under two labels stays there under both."""
    texts = ["film", "film", "film", "movie", "of the", ""]
    data = task(labelled(texts))
    rows = augment(data, tmp_path / "more", "--word-vectors", glove, "--candidates", 2)
    shown = capsys.readouterr().err
    assert "out of 6 (1 there before)" in shown and "no row has a new variant" not in shown
    kept = [(row["text"], row["label"]) for row in rows if row["text"] in texts]
    assert kept == [("film", "good"), ("film", "bad"), ("movie", "bad"), ("of the", "good"), ("", "bad")]
    assert len({row["text"] for row in rows}) == len(rows) - 1
    mixed = task([{"text": "film"}, *labelled(["film", "the"])], name="mixed")
    rows = augment(mixed, tmp_path / "of-mixed", "--word-vectors", glove)
    assert [row.get("label") for row in rows if row["text"] == "film"] == ["good"]
    bare = augment(data, tmp_path / "bare", "--word-vectors", glove, "--labels", "drop")
    assert [row["text"] for row in bare if row["text"] in texts] == ["film", "movie", "of the", ""]


def test_rows_without_a_variant_are_spoken_of(task: WriteTask, glove: Path, tmp_path: Path, capsys) -> None:
    """As where the words are of another language."""
    augment(task(labelled(["of the", "im Haus"])), tmp_path / "more", "--word-vectors", glove)
    shown = " ".join(capsys.readouterr().err.split())
    assert "2 rows out of 2, 40 duplicates dropped" in shown
    assert "no row has a new variant; are word_vectors or masked_lm of these rows' language?" in shown


def test_rows_depend_on_the_seed_and_their_number_only(
    task: WriteTask, glove: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = task(labelled(sentences(200)))
    flags = ("--word-vectors", glove, "--times", 4)
    rows = augment(data, tmp_path / "whole", *flags)
    monkeypatch.setattr(command, "CHUNK", 7)
    assert augment(data, tmp_path / "chunks", *flags) == rows
    assert augment(data, tmp_path / "seeded", *flags, "--seed", 1) != rows
    first = augment(data, tmp_path / "first", *flags, "--max-rows", 50)
    assert first == rows[: len(first)]


@pytest.mark.parametrize("source", ["masked_lm", "glove"])
def test_an_interrupted_run_goes_on(
    source: str, request: pytest.FixtureRequest, task: WriteTask, tmp_path: Path, monkeypatch, capsys
) -> None:
    data = task(labelled(sentences(30)))
    name = {"masked_lm": "--masked-lm", "glove": "--word-vectors"}[source]
    flags = (name, request.getfixturevalue(source), "--times", 4)
    monkeypatch.setattr(command, "CHUNK", 8)
    whole = augment(data, tmp_path / "whole", *flags)
    assert len(whole) > 80

    fsync, calls = command.RowsFile.append, []

    def failing(self: command.RowsFile, *arguments: object, **named: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        fsync(self, *arguments, **named)  # type: ignore[arg-type]

    broken = tmp_path / "broken"
    monkeypatch.setattr(command.RowsFile, "append", failing)
    with pytest.raises(SystemExit) as left:
        augment(data, broken, *flags)
    assert left.value.code == 130
    assert not (broken / "train.jsonl").exists()
    capsys.readouterr()
    for other, says in (
        (("--times", 5), "times: what is there began with 4, not 5"),
        (("--seed", 5), "seed: what is there began with 0, not 5"),
        (("--max-rows", 7), "data: what is there began with"),
    ):
        assert says in refused(capsys, data, broken, *flags, *other, "--resume")
    assert "is not empty; set resume" in refused(capsys, data, broken, *flags)

    assert augment(data, broken, *flags, "--resume") == whole
    before = (broken / "train.jsonl").stat()
    assert augment(data, broken, *flags, "--resume") == whole  # finished: only read
    assert (broken / "train.jsonl").stat() == before
    assert {path.name for path in broken.iterdir()} - {".lock"} == {
        *("train.jsonl", "validation.jsonl", "labels.json", "augment.json")
    }


def test_killed_again_and_again_it_ends_with_the_same_file(
    task: WriteTask, glove: Path, tmp_path: Path
) -> None:
    data = task(labelled(sentences(6000)))
    flags = ("--word-vectors", glove, "--times", 20, "--candidates", 3)
    augment(data, tmp_path / "whole", *flags)
    broken = tmp_path / "broken"
    words = ["augment", "--data", data, "--output", broken, *flags, "--resume"]
    line = [sys.executable, "-m", "student_trainer", *map(str, words)]
    card, done = broken / "augment.json", 0
    for _ in range(2):
        with subprocess.Popen(line, stderr=subprocess.DEVNULL) as process:
            until = time.monotonic() + 60
            while not card.exists() or json.loads(card.read_text())["state"]["done"] <= done:
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.002)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        done = json.loads(card.read_text())["state"]["done"]
        assert 0 < done < 6000
        assert not (broken / "train.jsonl").exists()
        with (broken / "train.jsonl.writing").open("a") as torn:
            torn.write('{"text": "half a l')
    subprocess.run(line, check=True, stderr=subprocess.DEVNULL, timeout=100)
    assert (broken / "train.jsonl").read_bytes() == (tmp_path / "whole" / "train.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--times", 0), ["times: ", "(it is '0')"]),
        (("--probability", 0), ["probability: ", "(it is '0')"]),
        (("--probability", 1.5), ["probability: ", "(it is '1.5')"]),
        (("--candidates", 0), ["candidates: ", "(it is '0')"]),
        (("--labels", "lose"), ["labels: ", "'keep' or 'drop'", "(it is 'lose')"]),
        (("--masked-lm", "no/such"), ["masked_lm: ", "one of the two"]),
        (("--word-vectors", "no-such"), ["word_vectors: ", "no-such", "cannot be read"]),
        (("--data", "./nowhere"), ["data: ", "nowhere", "no folder"]),
        (("--max-rows", 1), ["max_rows"]),
    ],
)
def test_a_mistake_is_one_line(
    flags: tuple[object, ...], says: list[str], task: WriteTask, glove: Path, tmp_path: Path, capsys
) -> None:
    data = task(labelled(sentences(4)))
    line = refused(capsys, data, tmp_path / "more", "--word-vectors", glove, *flags)
    assert all(part in line for part in says), line
    assert "\n" not in line
    assert not (tmp_path / "more").exists()


def test_no_source_of_candidates(task: WriteTask, tmp_path: Path, capsys) -> None:
    line = refused(capsys, task(labelled(sentences(4))), tmp_path / "more")
    assert line.startswith("masked_lm: give a masked language model, or `word_vectors`")


def test_folders_of_something_else(task: WriteTask, glove: Path, tmp_path: Path, capsys) -> None:
    data, flags = task(labelled(sentences(4))), ("--word-vectors", glove)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("dear")
    assert "is not empty" in refused(capsys, data, foreign, *flags)
    assert "no augmented rows" in refused(capsys, data, foreign, *flags, "--resume")
    assert [path.name for path in foreign.iterdir()] == ["letter.txt"]
    assert "cannot be written" in refused(capsys, data, foreign / "letter.txt", *flags)


def test_rows_that_were_lost(task: WriteTask, glove: Path, tmp_path: Path, capsys) -> None:
    data, flags, output = task(labelled(sentences(9))), ("--word-vectors", glove), tmp_path / "more"
    augment(data, output, *flags)
    (output / "train.jsonl").unlink()
    capsys.readouterr()
    assert "lacks rows that it had" in refused(capsys, data, output, *flags, "--resume")


def test_seen() -> None:
    seen = Seen()
    assert seen.add([]) == []
    one, other, pair = Instance("a b"), Instance("a", "b"), Instance("ab", "")
    assert seen.add([one, other, one, pair]) == [True, True, False, True]
    assert seen.add([Instance("c"), other, Instance("c"), pair]) == [True, False, False, False]
    many = [Instance(str(number)) for number in range(5000)]
    assert all(seen.add(many[::2]))
    assert seen.add(many) == [number % 2 == 1 for number in range(5000)]
