"""The four sieves: what is asked, what is kept, what is charged, and what is said when it goes wrong."""

import asyncio
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from fake_teacher import FakeTeacher, account, asker_on, instances, logits, outcomes
from hypothesis import given, settings
from hypothesis import strategies as st

from student_trainer.costs.database import open_database, transaction
from student_trainer.costs.ledger import totals
from student_trainer.teachers.store import Store
from teacher_api.errors import (
    FingerprintMismatchError,
    InternalError,
    InvalidRequestError,
    NotReadyError,
    TeacherError,
)
from teacher_api.messages import Answer, Instance, Outputs, Want


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_database(tmp_path / "answers.sqlite")) as opened:
        yield opened


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "charges.log"


def open_reservations(database: sqlite3.Connection) -> int:
    return database.execute("SELECT COUNT(*) FROM in_flight").fetchone()[0]


def right(answers: list[Answer | None], texts: list[str]) -> bool:
    return all(
        answer is not None
        and answer.outputs is not None
        and np.array_equal(answer.outputs.logits, logits(text))
        for answer, text in zip(answers, texts, strict=True)
    )


async def test_a_question_is_asked_once_and_kept(database: sqlite3.Connection, log: Path) -> None:
    teacher = FakeTeacher(log)
    asker = asker_on(database, teacher)
    texts = ["one", "two", "one", "three"]
    assert right(await asker.ask(0, [10, 11, 12, 13], instances(*texts)), texts)
    assert right(await asker.ask(1, [10, 20], instances("one", "four")), ["one", "four"])
    assert teacher.asked == [["one", "two", "three"], ["four"]]
    assert outcomes(database) == [
        (0, 10, "charged"),
        (0, 11, "charged"),
        (0, 12, "joined"),
        (0, 13, "charged"),
        (1, 10, "kept"),
        (1, 20, "charged"),
    ]
    assert open_reservations(database) == 0


class Deep(FakeTeacher):
    """Gives hidden states of the wanted layers beside the logits."""

    async def ask(self, instances: Sequence[Instance], want: Want, operation: str = "") -> list[Answer]:
        answers = await super().ask(instances, want, operation)
        states = {layer: np.full(8, layer, np.float32) for layer in want.layers}
        return [Answer(Outputs(one.outputs.logits, states), one.cached, one.charged) for one in answers]


async def test_an_answer_that_has_more_than_is_wanted_is_enough(
    database: sqlite3.Connection, log: Path
) -> None:
    """And one that has less is not: what is missing is asked for."""
    teacher, texts = Deep(log), instances("one", "two")
    deep = Want(layers=(1, 2), pooling="mean")
    await asker_on(database, teacher, want=deep).ask(0, [1, 2], texts)
    plain = asker_on(database, teacher, "second")
    assert right(plain.kept(texts[:1]), ["one"])
    found = await plain.ask(0, [1, 2, 3], [*texts, Instance("three")])
    assert right(found, ["one", "two", "three"])
    assert [answer.outputs.hidden for answer in found] == [{}, {}, {}]
    half = Want(logits=False, layers=(2,), pooling="mean", hidden_dtype="float16")
    (some,) = await asker_on(database, teacher, "third", want=half).ask(0, [1], texts[:1])
    assert some.outputs.logits is None
    assert some.outputs.hidden[2].tolist() == [2] * 8
    assert some.outputs.hidden[2].dtype == np.float16
    assert teacher.asked == [["one", "two"], ["three"]]
    assert [outcome for *_, outcome in outcomes(database, "second")] == ["kept", "kept", "charged"]
    for more in (Want(layers=(1, 2), pooling="cls"), deep, Want(layers=(1, 2, 0), pooling="mean")):
        await asker_on(database, teacher, f"{more}", want=more).ask(0, [1], [Instance("three")])
    assert teacher.asked[2:] == [["three"]] * 3


async def test_another_teachers_answers_are_none(database: sqlite3.Connection, log: Path) -> None:
    teacher = Deep(log)
    await asker_on(database, teacher, want=Want(layers=(1,))).ask(0, [1], instances("one"))
    other = Deep(log)
    other.description = replace(teacher.description, fingerprint="e" * 64)
    assert asker_on(database, other).kept(instances("one")) == [None]


async def test_another_run_asks_nothing(database: sqlite3.Connection, log: Path) -> None:
    teacher = FakeTeacher(log)
    await asker_on(database, teacher).ask(0, [1, 2], instances("one", "two"))
    answers = await asker_on(database, teacher, "second").ask(0, [1, 2], instances("one", "two"))
    assert right(answers, ["one", "two"])
    assert len(teacher.asked) == 1
    assert [(total.outcome, total.count, total.usd) for total in totals(database, "second")] == [
        ("kept", 2, 0)
    ]


async def test_another_want_is_another_question(database: sqlite3.Connection, log: Path) -> None:
    teacher = FakeTeacher(log)
    await asker_on(database, teacher).ask(0, [1], instances("one"))
    await asker_on(database, teacher, want=Want(layers=(1,))).ask(1, [1], instances("one"))
    assert len(teacher.asked) == 2


async def test_what_flies_for_another_step_is_not_asked(database: sqlite3.Connection, log: Path) -> None:
    teacher = FakeTeacher(log, delay_s=0.05)
    asker = asker_on(database, teacher)
    first, second = await asyncio.gather(
        asker.ask(0, [1, 2], instances("one", "two")), asker.ask(1, [2, 3], instances("two", "three"))
    )
    assert right(first, ["one", "two"])
    assert right(second, ["two", "three"])
    assert teacher.asked == [["one", "two"], ["three"]]
    # "kept", as without a second ask in flight: the ledger does not depend on the wire's pace.
    assert outcomes(database) == [(0, 1, "charged"), (0, 2, "charged"), (1, 2, "kept"), (1, 3, "charged")]


async def test_the_servers_cache_costs_nothing(
    database: sqlite3.Connection, log: Path, tmp_path: Path
) -> None:
    teacher = FakeTeacher(log)
    await asker_on(database, teacher).ask(0, [1], instances("one"))
    with closing(open_database(tmp_path / "another_trainer.sqlite")) as elsewhere:
        answers = await asker_on(elsewhere, teacher).ask(0, [1], instances("one"))
        assert answers[0].cached
        assert outcomes(elsewhere) == [(0, 1, "cached")]
        assert totals(elsewhere, "run")[0].usd == 0


async def test_the_bill_is_the_tariffs(database: sqlite3.Connection, log: Path) -> None:
    await asker_on(database, FakeTeacher(log)).ask(0, [1, 2], instances("x" * 301, ""))
    (total,) = totals(database, "run")
    assert (total.characters, total.units, total.queries, total.usd) == (301, 7, 2, Decimal("0.0007"))


async def test_the_budget_refuses_the_last_ones(database: sqlite3.Connection, log: Path) -> None:
    teacher = FakeTeacher(log)
    asker = asker_on(database, teacher, queries=3)
    assert right(await asker.ask(0, [1, 2], instances("one", "two")), ["one", "two"])
    answers = await asker.ask(1, [3, 1, 4, 5], instances("three", "one", "four", "four"))
    assert [answer is not None for answer in answers] == [True, True, False, False]
    assert outcomes(database)[2:] == [(1, 1, "kept"), (1, 3, "charged"), (1, 4, "refused"), (1, 5, "refused")]
    assert teacher.asked == [["one", "two"], ["three"]]


async def test_refunds_are_spent_in_the_same_ask(database: sqlite3.Connection, log: Path) -> None:
    words = [f"word {i}" for i in range(10)]
    teacher = FakeTeacher(log)
    await asker_on(database, teacher).ask(0, range(10), instances(*words))
    database.execute("DELETE FROM answers")
    asker = asker_on(database, teacher, "second", queries=14)  # 10 are spent, all are in the server's cache
    assert right(await asker.ask(0, range(10), instances(*words)), words)
    assert [len(part) for part in teacher.asked] == [10, 4, 4, 2]


async def test_a_reservation_of_ones_own_is_waited_for(database: sqlite3.Connection, log: Path) -> None:
    teacher = FakeTeacher(log, delay_s=0.05)
    for word in ("one", "two"):
        await asker_on(database, teacher).ask(0, [0], instances(word))
    database.execute("DELETE FROM answers")
    asker = asker_on(database, teacher, "second", queries=4)
    first, second = await asyncio.gather(
        asker.ask(0, [1, 2], instances("one", "two")), asker.ask(1, [3, 4], instances("three", "four"))
    )
    assert right(first, ["one", "two"])
    assert right(second, ["three", "four"])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.array([1.0, 2.0], np.float32), r"not one a label \(field logits, value 2, limit 3\)"),
        (np.array([1.0, np.nan, 2.0], np.float32), "not finite"),
        (np.array([1.0, np.inf, 2.0], np.float32), "not finite"),
        (None, r"not one a label \(field logits, value 0, limit 3\)"),
    ],
)
async def test_an_answer_nobody_may_learn_from(
    database: sqlite3.Connection, log: Path, wrong: np.ndarray | None, said: str
) -> None:
    bad = Answer(Outputs(logits=wrong), charged=1)
    teacher = FakeTeacher(log, faults=lambda instance: bad if instance.text == "bad" else None)
    with pytest.raises(InternalError, match=said):
        await asker_on(database, teacher).ask(0, [1, 2], instances("bad", "good"))
    assert outcomes(database) == [(0, 1, "failed"), (0, 2, "charged")]
    assert [total.queries for total in totals(database, "run")] == [
        1,
        1,
    ]  # a bad answer's charge is not hidden
    assert len(Store(database).get_many([bytes.fromhex(row[2]) for row in account(database)])) == 1


@pytest.mark.parametrize(
    ("error", "held"),
    [
        (InvalidRequestError("no"), 0),  # never ran
        (NotReadyError("away"), 1),  # may have run: its reservation stands until the run resumes
    ],
)
async def test_a_failure_keeps_the_others_and_is_asked_again_on_resume(
    database: sqlite3.Connection, log: Path, error: TeacherError, held: int
) -> None:
    failing = FakeTeacher(
        log, faults=lambda instance: Answer(error=error) if instance.text == "two" else None
    )
    with pytest.raises(type(error)):
        await asker_on(database, failing).ask(0, [1, 2, 3], instances("one", "two", "three"))
    assert open_reservations(database) == held
    teacher = FakeTeacher(log)
    assert right(
        await asker_on(database, teacher).ask(0, [1, 2, 3], instances("one", "two", "three")),
        ["one", "two", "three"],
    )
    assert teacher.asked == [["two"]]
    assert open_reservations(database) == 0
    assert [(total.outcome, total.count) for total in totals(database, "run")] == [("charged", 3)]


async def test_a_changed_teacher_is_said_before_all_else(database: sqlite3.Connection, log: Path) -> None:
    errors = {"one": NotReadyError("away"), "two": FingerprintMismatchError("another")}
    teacher = FakeTeacher(log, faults=lambda instance: Answer(error=errors[instance.text]))
    with pytest.raises(FingerprintMismatchError):
        await asker_on(database, teacher).ask(0, [1, 2], instances("one", "two"))


async def test_who_shares_a_failed_question_is_told(database: sqlite3.Connection, log: Path) -> None:
    gone = Answer(error=NotReadyError("away"))
    asker = asker_on(database, FakeTeacher(log, delay_s=0.05, faults=lambda instance: gone))
    results = await asyncio.gather(
        asker.ask(0, [1], instances("one")), asker.ask(1, [1], instances("one")), return_exceptions=True
    )
    assert [type(result) for result in results] == [NotReadyError, NotReadyError]
    assert outcomes(database) == [(0, 1, "failed"), (1, 1, "failed")]


async def test_a_cancelled_ask_does_not_hang_its_sharer(database: sqlite3.Connection, log: Path) -> None:
    asker = asker_on(database, FakeTeacher(log, delay_s=60))
    first = asyncio.create_task(asker.ask(0, [1], instances("one")))
    second = asyncio.create_task(asker.ask(1, [1], instances("one")))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(TeacherError, match="given up"):
        await asyncio.wait_for(second, 5)
    assert open_reservations(database) == 1  # it may have been charged


async def test_an_answer_lost_on_its_way_is_still_counted(database: sqlite3.Connection, log: Path) -> None:
    dying = asyncio.create_task(
        asker_on(database, FakeTeacher(log, delay_s=60), queries=2).ask(0, [1], instances("one"))
    )
    await asyncio.sleep(0)  # charged by the teacher, then lost
    dying.cancel()
    await asyncio.wait([dying])
    asker = asker_on(database, FakeTeacher(log), queries=2)
    assert right(await asker.ask(0, [1], instances("one")), ["one"])  # out of the teacher's cache
    assert outcomes(database) == [(0, 1, "charged")]
    answers = await asker.ask(1, [2, 3], instances("two", "three"))
    assert [answer is not None for answer in answers] == [True, False]


async def test_a_client_that_raises_as_a_whole(database: sqlite3.Connection, log: Path) -> None:
    class Refusing(FakeTeacher):
        async def ask(self, instances: object, want: Want, operation: str = "") -> list[Answer]:
            raise InvalidRequestError("the text is too long", field="instances[1].text")

    with pytest.raises(InvalidRequestError, match="too long"):
        await asker_on(database, Refusing(log)).ask(0, [1, 2], instances("one", "two"))
    assert outcomes(database) == [(0, 1, "failed"), (0, 2, "failed")]
    assert open_reservations(database) == 0


async def test_a_corrupt_answer_is_overwritten(database: sqlite3.Connection, log: Path) -> None:
    teacher = FakeTeacher(log)
    await asker_on(database, teacher).ask(0, [1], instances("one"))
    database.execute("UPDATE answers SET value = substr(value, 1, 50)")
    assert right(await asker_on(database, teacher).ask(1, [1], instances("one")), ["one"])
    assert right(await asker_on(database, teacher).ask(2, [1], instances("one")), ["one"])
    assert [outcome for _, _, outcome in outcomes(database)] == ["charged", "cached", "kept"]


async def test_nothing_asked_is_nothing_written(database: sqlite3.Connection, log: Path) -> None:
    assert await asker_on(database, FakeTeacher(log)).ask(0, [], []) == []
    assert account(database) == []


def test_the_store_keeps_many(database: sqlite3.Connection) -> None:
    store = Store(database)
    answers = {
        bytes([i // 256, i % 256]) * 16: Outputs(logits=np.full(3, i, np.float32)) for i in range(3_000)
    }
    with transaction(database):
        store.put_many(answers)
    found = store.get_many([*answers, b"?" * 32])
    assert {key: outputs.logits[0] for key, outputs in found.items()} == {
        key: outputs.logits[0] for key, outputs in answers.items()
    }


@settings(deadline=None, max_examples=40)
@given(
    steps=st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=6), max_size=8),
    served=st.sets(st.sampled_from("abcdefgh")),
    queries=st.none() | st.integers(0, 8),
    together=st.booleans(),
)
async def test_any_history_adds_up(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[list[str]],
    served: set[str],
    queries: int | None,
    together: bool,
) -> None:
    folder = tmp_path_factory.mktemp("history")
    (folder / "log").write_text("".join(f"{text}\n" for text in served))
    with closing(open_database(Path(":memory:"))) as database:
        teacher = FakeTeacher(folder / "log")
        asker = asker_on(database, teacher, queries=queries)
        asks = [asker.ask(step, range(len(texts)), instances(*texts)) for step, texts in enumerate(steps)]
        came = await asyncio.gather(*asks) if together else [await ask for ask in asks]
        for texts, answers in zip(steps, came, strict=True):
            given = [
                (answer, text) for answer, text in zip(answers, texts, strict=True) if answer is not None
            ]
            assert right([answer for answer, _ in given], [text for _, text in given])
        counts = {total.outcome: total.count for total in totals(database, "run")}
        charged = len((folder / "log").read_text().split()) - len(served)
        assert counts.get("charged", 0) == charged <= (8 if queries is None else queries)
        assert sum(counts.values()) == sum(map(len, steps))
        assert counts.get("refused", 0) == sum(answer is None for answers in came for answer in answers)
        assert [text for part in teacher.asked for text in part] == list(
            dict.fromkeys(text for part in teacher.asked for text in part)
        )
        assert open_reservations(database) == 0


async def test_speed(database: sqlite3.Connection, log: Path) -> None:
    """Of the processor, so that a busy machine does not fail it: 32 new answers 10 ms, 32 kept ones 3 ms."""
    asker, new, kept = asker_on(database, FakeTeacher(log), queries=10**6), [], []
    for step in range(30):
        texts = [f"{step}: a sentence of some length, number {i}" for i in range(32)]
        for times, at in ((new, step), (kept, step + 1000)):
            began = time.thread_time()
            await asker.ask(at, range(32), instances(*texts))
            times.append(time.thread_time() - began)
    assert min(new) < 0.010
    assert min(kept) < 0.003
