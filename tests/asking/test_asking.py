"""The synchronous face: a thread that starts, fails, ends and brings answers home as it should."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import numpy as np
import pytest
from fake_teacher import FakeTeacher, asker_on, instances, logits, outcomes

from student_trainer.costs.database import open_database
from student_trainer.teachers.asker import Asker
from student_trainer.teachers.asking import Asking
from teacher_api.errors import InvalidRequestError, NotReadyError
from teacher_api.messages import Answer


@asynccontextmanager
async def opened(
    folder: Path, delay_s: float = 0.0, queries: int | None = None, fault: Answer | None = None
) -> AsyncIterator[list[Asker]]:
    teacher = FakeTeacher(folder / "log", delay_s, lambda instance: fault)
    with closing(open_database(folder / "answers.sqlite")) as database:
        yield [asker_on(database, teacher, queries=queries)]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    for thread in threading.enumerate():
        if thread.name == "asking":
            thread.join(5)
            assert not thread.is_alive()


def test_steps_are_handed_over_and_answered(tmp_path: Path) -> None:
    with Asking(opened(tmp_path, delay_s=0.05, queries=3)) as teacher:
        first = teacher.submit(0, [1, 2], instances("one", "two"))
        second = teacher.submit(1, [2, 3, 4], instances("two", "three", "four"))
        assert not first.done()
        assert np.array_equal(first.result(10)[1].outputs.logits, logits("two"))
        assert [answer is not None for answer in second.result(10)] == [True, True, False]


def test_an_error_comes_out_of_the_future(tmp_path: Path) -> None:
    with Asking(opened(tmp_path, fault=Answer(error=InvalidRequestError("no such layer")))) as teacher:
        future = teacher.submit(0, [1], instances("one"))
        with pytest.raises(InvalidRequestError, match="no such layer"):
            future.result(10)


def test_an_error_on_the_way_in_is_raised(tmp_path: Path) -> None:
    @asynccontextmanager
    async def nobody() -> AsyncIterator[list[Asker]]:
        raise NotReadyError("nobody is there")
        yield

    with pytest.raises(NotReadyError, match="nobody is there"):
        Asking(nobody())


def test_closing_waits_for_what_may_be_paid(tmp_path: Path) -> None:
    with Asking(opened(tmp_path, delay_s=0.2)) as teacher:
        future = teacher.submit(0, [1], instances("one"))
    assert future.done()
    with closing(open_database(tmp_path / "answers.sqlite")) as database:
        assert outcomes(database) == [(0, 1, "charged")]


def test_closing_does_not_wait_for_ever(tmp_path: Path) -> None:
    teacher = Asking(opened(tmp_path, delay_s=3600), grace_s=0.1)
    future = teacher.submit(0, [1], instances("one"))
    teacher.close()
    teacher.close()
    assert future.cancelled()
    with closing(open_database(tmp_path / "answers.sqlite")) as database:
        assert database.execute("SELECT COUNT(*) FROM in_flight").fetchone() == (1,)
