"""`student-trainer record`, and runs that replay it: an answer is paid for once, a run's bill is the same."""

import json
import shutil
import signal
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from processes import ServerProcess, StartServer, start_server
from tiny_task import TRAIN, VALIDATION, rows, write_task
from trainers import ONE_TEXT_A_RUN, Trainer, ledger_of, result_of, timeless, usage, weights_of

from student_trainer.record import CHUNK
from student_trainer.teachers import connect
from student_trainer.teachers.client import Client
from student_trainer.teachers.recorded import Recording
from teacher_api.messages import Instance, Want

BOOK = """
as_of = 2026-01-01
source = "made up: a tenth of a cent for each text, the first ten free"

[features.sentiment]
unit_characters = 1000
free_units = 10
tiers = [{ usd_per_1000 = 1 }]
"""
OUTPUT = "teacher.rec"


def record(folder: Path, *flags: object, code: int = 0) -> str:
    """What it prints, of a run to its end."""
    trainer = Trainer(folder, "record", "--output", OUTPUT, *flags)
    assert trainer.wait() == code, trainer.log
    shown = trainer.log
    (folder / "log").unlink()
    return shown


def _listed(layers: Sequence[int]) -> str:
    return ",".join(map(str, layers))


def answered(path: Path) -> int:
    """Without a lock that could stand in the recorder's way; 0 if there is no table yet."""
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        try:
            count: int = database.execute("SELECT COUNT(*) FROM answers").fetchone()[0]
            return count
        except sqlite3.OperationalError:
            return 0


def in_flight(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        count: int = database.execute("SELECT COUNT(*) FROM in_flight").fetchone()[0]
        return count


@pytest.fixture(scope="module")
def recording(teacher: Path, task: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the task, by the teacher that `by_entropy` asked, one text at a time as its server did."""
    folder = tmp_path_factory.mktemp("recording")
    server = start_server(teacher, folder / "server.log", *ONE_TEXT_A_RUN)
    try:
        shown = record(folder, "--data", task, "--teacher", server.url)
        assert usage(server)["charged"] == TRAIN + VALIDATION
    finally:
        assert server.stop() == 0
    assert f"answers {TRAIN + VALIDATION} different questions" in shown
    assert f"the teacher recorded:{OUTPUT}" in shown
    return folder / OUTPUT


def test_a_replayed_run_equals_the_live_one(
    command, by_entropy: Path, recording: Path, tmp_path: Path
) -> None:
    """Weights to the bit, scores, and the ledger by row: outcome, units, queries, dollars."""
    trainer = Trainer(tmp_path, *command(teacher=f"recorded:{recording}"))
    assert trainer.wait() == 0, trainer.log
    assert ledger_of(tmp_path) == ledger_of(by_entropy)
    assert weights_of(tmp_path / "run") == weights_of(by_entropy / "run")
    replayed, live = result_of(tmp_path / "run"), result_of(by_entropy / "run")
    assert timeless(replayed) == timeless(live)
    assert live["questions"]["charged"] > 0


def test_a_budget_stops_a_replayed_run_where_it_stops_a_live_one(
    command, recording: Path, new_server: StartServer, tmp_path: Path
) -> None:
    (tmp_path / "book.toml").write_text(BOOK)
    server = new_server(*ONE_TEXT_A_RUN)
    limits = ("--price-book", tmp_path / "book.toml", "--budget-usd", "0.0255")
    results = {}
    for name, url in (("live", server.url), ("replayed", f"recorded:{recording}")):
        folder = tmp_path / name
        folder.mkdir()
        trainer = Trainer(folder, *command(*limits, teacher=url))
        assert trainer.wait() == 0, trainer.log
        results[name] = (timeless(result_of(folder / "run")), ledger_of(folder), weights_of(folder / "run"))
    assert results["live"] == results["replayed"]
    questions = results["live"][0]["questions"]
    assert results["live"][0]["stopped"]
    assert usage(server)["charged"] == questions["charged"] + questions["checked"] == 35


def test_rows_that_were_not_recorded_are_refused_before_the_first_question(
    command, recording: Path, task: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(task, data)
    with (data / "train.jsonl").open("a") as file:
        file.write(json.dumps({"text": "a row that came later", "label": "positive"}) + "\n")
    trainer = Trainer(tmp_path, *command(teacher=f"recorded:{recording}", data=data))
    assert trainer.wait() == 2
    assert f"recording {recording} has no answer about 1 of {TRAIN + 1} training rows" in trainer.log
    assert "student-trainer record" in trainer.log
    assert "max_rows" in trainer.log
    assert not (tmp_path / "run").exists()


def test_hidden_states_that_were_not_recorded_are_refused_unpaid(
    command, recording: Path, tmp_path: Path
) -> None:
    more = ("--supervision", "static", "--layer-map", "1:1")
    trainer = Trainer(tmp_path, *command(*more, teacher=f"recorded:{recording}"))
    assert trainer.wait() == 2
    assert f"the recording {recording} has logits, not logits and layers 1 (pooling cls" in trainer.log
    assert not (tmp_path / "run").exists()
    with closing(sqlite3.connect(tmp_path / "answers.sqlite")) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    assert not tables & {"ledger", "answers", "in_flight"}  # the account was not even begun


@pytest.mark.parametrize(
    "want",
    [
        Want(layers=(1, 3), pooling="mean", hidden_dtype="float16"),
        Want(layers=(2,), pooling="none", attentions=(3, 1)),
    ],
    ids=["pooled", "whole"],
)
async def test_hidden_states_are_recorded_as_a_live_teacher_gives_them(
    want: Want, server: ServerProcess, tmp_path: Path
) -> None:
    texts = [{"text": row["text"]} for row in rows(40, "without labels")]
    data = write_task(tmp_path / "task", texts[:30], texts[30:])
    wanted = ["--layers", _listed(want.layers), "--pooling", want.pooling]
    wanted += ["--hidden-dtype", want.hidden_dtype]
    wanted += ["--attentions", _listed(want.attentions)] if want.attentions else []
    record(tmp_path, "--data", data, "--teacher", server.url, "--splits", "validation", *wanted)
    asked = [Instance(row["text"]) for row in texts[30:]]
    with closing(Recording.open(tmp_path / OUTPUT)) as recording:
        assert (recording.want, len(recording)) == (want, 10)
        kept = recording.get_many(asked)
    async with await Client.over(connect(server.url)) as client:
        live = [answer.outputs for answer in await client.ask(asked, want)]
    for one, other in zip(kept, live, strict=True):
        assert np.array_equal(one.logits, other.logits)
        assert tuple(one.hidden) == want.layers
        assert tuple(one.attentions) == want.attentions
        pairs = zip(one.arrays, other.arrays, strict=True)
        assert all(np.array_equal(recorded, answered) for recorded, answered in pairs)


@pytest.mark.parametrize("more", [(), ("--answers", "answers.sqlite")], ids=["alone", "shared"])
def test_killed_again_and_again_it_pays_for_nothing_twice(
    more: tuple[str, ...], new_server: StartServer, tmp_path: Path
) -> None:
    data = write_task(tmp_path / "task", rows(5 * CHUNK, "many"), rows(60, "few"))
    texts = {row["text"] for row in (*rows(5 * CHUNK, "many"), *rows(60, "few"))}
    server, path = new_server(), tmp_path / OUTPUT
    account = tmp_path / (more[1] if more else OUTPUT)
    flags = ("record", "--output", OUTPUT, "--data", data, "--teacher", server.url, *more)

    charging = Trainer(tmp_path, *flags, hold="student_trainer.costs.ledger._columns")
    assert charging.wait_for_steps(1)  # the first chunk is answered, and not yet written down
    assert charging.kill() == -signal.SIGKILL
    assert (answered(path), in_flight(account)) == (0, usage(server)["charged"])

    kept = [0]
    for _ in range(2):
        trainer = Trainer(tmp_path, *flags)
        until = time.monotonic() + 60
        while answered(path) == kept[-1]:
            assert time.monotonic() < until, trainer.log
            time.sleep(0.005)
        trainer.kill()
        with closing(Recording.open(path)) as partial:
            kept.append(len(partial))
    assert kept == sorted(set(kept)), kept
    assert kept[-1] < len(texts)

    shown = record(tmp_path, "--data", data, "--teacher", server.url, *more)
    assert f"answers {len(texts):,} different questions" in shown
    counts = usage(server)
    assert counts["charged"] == len(texts)
    assert counts["asked"] <= len(texts) + 3 * CHUNK  # what was under way when it was killed
    with closing(sqlite3.connect(account)) as ledger:
        assert ledger.execute("SELECT SUM(queries), COUNT(DISTINCT run) FROM ledger").fetchone() == (
            len(texts),
            1,
        )
    assert in_flight(account) == 0
    record(tmp_path, "--data", data, "--teacher", server.url, *more)
    assert usage(server) == counts


def test_a_budget_stops_it_and_a_larger_one_goes_on(
    task: Path, new_server: StartServer, tmp_path: Path
) -> None:
    server = new_server("--cache-entries", "0")  # one that would charge again
    flags = ("--data", task, "--teacher", server.url)
    shown = record(tmp_path, *flags, "--budget-queries", 50)
    assert "answers 50 different questions" in shown
    assert "budget spent" in shown
    assert usage(server)["charged"] == answered(tmp_path / OUTPUT) == 50
    assert "budget spent" in record(tmp_path, *flags, "--budget-queries", 50)
    assert usage(server)["charged"] == 50
    (tmp_path / "book.toml").write_text(BOOK)
    shown = record(tmp_path, *flags, "--price-book", "book.toml")
    assert f"answers {TRAIN + VALIDATION} different questions" in shown
    assert f"{TRAIN + VALIDATION} charged" in shown
    assert usage(server)["charged"] == TRAIN + VALIDATION


def test_what_the_account_has_paid_for_is_recorded_for_nothing(
    command, task: Path, new_server: StartServer, tmp_path: Path
) -> None:
    server = new_server("--cache-entries", "0")
    distilled = Trainer(tmp_path, *command("--strategy", "all", "--epochs", 1, teacher=server.url))
    assert distilled.wait() == 0, distilled.log
    before = usage(server)["charged"]
    flags = ("--data", task, "--teacher", server.url, "--splits", "train", "--answers", "answers.sqlite")
    shown = record(tmp_path, *flags)
    assert f"{TRAIN} kept" in shown
    assert usage(server)["charged"] == before
    assert answered(tmp_path / OUTPUT) == TRAIN


def test_one_at_a_time(task: Path, server: ServerProcess, tmp_path: Path) -> None:
    flags = ("--data", task, "--teacher", server.url)
    first = Trainer(tmp_path, "record", "--output", OUTPUT, *flags, hold="student_trainer.record._record")
    assert first.wait_for_steps(1)
    assert "another process works in" in record(tmp_path, *flags, code=2)
    first.kill()
    record(tmp_path, *flags)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--layers", "4"), "layers: [4] are not there"),
        (("--layers", "1,1"), "names one twice"),
        (("--layers", "-1"), "greater than or equal to 0"),
        (("--splits", "test"), "'train' or 'validation'"),
        (("--budget-usd", "3"), "price_book"),
        (("--price-book", "nobody"), "price_book: nobody: no such price book"),
        (("--data", "./nowhere"), "nowhere"),
        (("--teacher", "grpc://here"), "hosts and ports"),
        (("--teacher", "recorded:none.rec"), "no file none.rec"),
        (("--layers", "1"), "holds logits, not logits and layers 1"),
        (("--output", "book.toml"), "book.toml"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_spent(
    flags: tuple[str, ...], says: str, task: Path, server: ServerProcess, recording: Path, tmp_path: Path
) -> None:
    (tmp_path / OUTPUT).write_bytes(recording.read_bytes())
    (tmp_path / "book.toml").write_text(BOOK)
    before = usage(server)
    assert says in record(tmp_path, "--data", task, "--teacher", server.url, *flags, code=2)
    assert usage(server) == before
    assert (tmp_path / OUTPUT).read_bytes() == recording.read_bytes()
