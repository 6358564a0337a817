"""The client's patience: what it splits, asks again, gives up, and refuses before anything is sent."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from student_trainer.teachers.client import Client, Patience
from teacher_api.errors import (
    DeadlineExceededError,
    FingerprintMismatchError,
    InternalError,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    TeacherError,
)
from teacher_api.messages import Answer, Description, Instance, Outputs, Usage, Want

WANT = Want()
TEACHER = Description(
    name="scripted",
    fingerprint="f" * 64,
    labels=("no", "yes"),
    vocabulary_hash="v",
    max_length=128,
    layers=2,
    hidden_size=4,
    intermediate_size=16,
    parameters=100,
    dtype="float32",
    max_instances=4,
    max_characters=100,
)


class Scripted:
    """Answers each text with its number, but first raises what stands in `troubles`."""

    def __init__(self, *troubles: TeacherError, description: Description = TEACHER) -> None:
        self.troubles = list(troubles)
        self.description = description
        self.requests: list[list[str]] = []
        self.fingerprints: set[str] = set()
        self.under_way = self.most_under_way = 0
        self.closed = False

    async def describe(self) -> Description:
        self._trouble()
        return self.description

    async def predict(self, instances, want, fingerprint, operation=""):
        self.requests.append([instance.text for instance in instances])
        self.fingerprints.add(fingerprint)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)  # others may come in
        self.under_way -= 1
        self._trouble()
        return [self.answer(instance.text) for instance in instances]

    def answer(self, text: str) -> Answer:
        return Answer(Outputs(np.array([0, int(text)], np.float32)), charged=1)

    async def usage(self) -> Usage:
        return Usage(asked=7)

    async def close(self) -> None:
        self.closed = True

    def _trouble(self) -> None:
        if self.troubles:
            raise self.troubles.pop(0)


async def client_of(teacher, **patience) -> Client:
    return await Client.over(teacher, Patience(**{"seconds": 5, **patience}))


def texts(count: int) -> list[Instance]:
    return [Instance(str(number)) for number in range(count)]


def numbers(answers) -> list[float | None]:
    return [answer.outputs.logits[1] if answer.outputs else None for answer in answers]


async def test_questions_are_split_and_answered_in_order():
    teacher = Scripted()
    client = await client_of(teacher)
    assert numbers(await client.ask(texts(10), WANT)) == list(range(10))
    assert sorted(map(len, teacher.requests)) == [2, 4, 4]
    assert teacher.fingerprints == {TEACHER.fingerprint}
    assert await client.ask([], WANT) == []


async def test_requests_under_way_are_bounded():
    teacher = Scripted()
    client = await client_of(teacher, in_flight=3)
    await asyncio.gather(client.ask(texts(20), WANT), client.ask(texts(20), WANT))
    assert teacher.most_under_way == 3


async def test_parts_stay_below_a_messages_size():
    wide = replace(TEACHER, max_instances=1000, max_characters=10**9, hidden_size=2**17)
    client = await client_of(Scripted(description=wide))
    mebibyte = Instance("x" * 2**20)
    assert [len(part) for part in client._split([mebibyte] * 8, WANT)] == [5, 3]
    assert [len(part) for part in client._split([Instance("é" * 2**20)] * 4, WANT)] == [2, 2]
    assert [len(part) for part in client._split(texts(20), Want(layers=(1,)))] == [9, 9, 2]
    assert [len(part) for part in client._split(texts(3), Want(layers=(1,), pooling="none"))] == [1, 1, 1]


@pytest.mark.parametrize("trouble", [OverloadedError, NotReadyError, DeadlineExceededError])
async def test_what_may_pass_is_asked_again(trouble):
    teacher = Scripted()
    client = await client_of(teacher)
    teacher.troubles = [trouble("not now"), trouble("still not")]
    assert numbers(await client.ask(texts(3), WANT)) == [0, 1, 2]
    assert teacher.requests == [["0", "1", "2"]] * 3


async def test_the_servers_hint_is_respected():
    teacher = Scripted()
    client = await client_of(teacher)
    teacher.troubles = [OverloadedError("busy", retry_after_ms=400)]
    start = asyncio.get_running_loop().time()
    await client.ask(texts(1), WANT)
    assert 0.4 <= asyncio.get_running_loop().time() - start < 2


async def test_a_hint_beyond_the_patience_is_not_waited_for():
    teacher = Scripted()
    client = await client_of(teacher)
    teacher.troubles = [OverloadedError("busy", retry_after_ms=60_000)]
    [answer] = await client.ask(texts(1), WANT)
    assert isinstance(answer.error, OverloadedError)


async def test_a_part_that_fails_in_the_end_leaves_the_others_answered():
    teacher = Scripted()
    client = await client_of(teacher, in_flight=1)
    teacher.troubles = [InternalError("broken")]
    answers = await client.ask(texts(6), WANT)
    assert numbers(answers) == [None] * 4 + [4, 5]
    assert all(isinstance(answer.error, InternalError) for answer in answers[:4])


@pytest.mark.parametrize("trouble", [FingerprintMismatchError, InvalidRequestError, InternalError])
async def test_what_cannot_pass_is_never_asked_again(trouble):
    teacher = Scripted()
    client = await client_of(teacher)
    teacher.troubles = [trouble("no")]
    [answer] = await client.ask(texts(1), WANT)
    assert isinstance(answer.error, trouble)
    assert len(teacher.requests) == 1


async def test_only_the_instances_that_failed_are_asked_again():
    class Choosy(Scripted):
        def answer(self, text: str) -> Answer:
            if text == "1" and len(self.requests) < 3:
                return Answer(error=DeadlineExceededError("late"))
            return Answer(error=InternalError("bad")) if text == "2" else super().answer(text)

    teacher = Choosy()
    answers = await (await client_of(teacher)).ask(texts(4), WANT)
    assert numbers(answers) == [0, 1, None, 3]
    assert teacher.requests == [["0", "1", "2", "3"], ["1"], ["1"]]


async def test_patience_ends():
    client = await client_of(Scripted(), seconds=0.3)
    client._teacher.troubles = [NotReadyError("away")] * 100
    [answer] = await client.ask(texts(1), WANT)
    assert isinstance(answer.error, NotReadyError)


async def test_a_teacher_that_starts_later_is_waited_for():
    client = await client_of(Scripted(NotReadyError("starting")))
    assert client.description == TEACHER


async def test_a_teacher_that_does_not_describe_itself_is_closed():
    teacher = Scripted(InternalError("broken"))
    with pytest.raises(InternalError):
        await client_of(teacher)
    assert teacher.closed


@pytest.mark.parametrize("instance", [Instance("x" * 101), Instance("x" * 60, "y" * 41), Instance("\ud800")])
async def test_what_cannot_be_answered_is_refused_here(instance):
    teacher = Scripted()
    client = await client_of(teacher)
    with pytest.raises(InvalidRequestError) as caught:
        await client.ask([*texts(8), instance], WANT)
    assert caught.value.field == "instances[8].text"
    assert teacher.requests == []


VECTOR = np.zeros(4, np.float32)


@pytest.mark.parametrize(
    ("want", "outputs"),
    [
        (WANT, None),
        (WANT, Outputs(np.zeros(3, np.float32))),
        (WANT, Outputs(np.zeros(2, np.float16))),
        (WANT, Outputs(np.zeros(2, np.float32), {1: VECTOR})),
        (Want(False, (1,)), Outputs(np.zeros(2, np.float32), {1: VECTOR})),
        (Want(False, (1, 2)), Outputs(None, {1: VECTOR})),
        (Want(False, (1,)), Outputs(None, {1: VECTOR[:3]})),
        (Want(False, (1,)), Outputs(None, {1: VECTOR.astype(np.float16)})),
        (Want(False, (1,), "none"), Outputs(None, {1: np.zeros((2, 4), np.float32)})),
        (
            Want(False, (1,), "none"),
            Outputs(None, {1: np.zeros((2, 4), np.float32)}, np.ones(3, np.uint8)),
        ),
    ],
)
async def test_an_answer_to_another_question_is_an_error(want, outputs):
    teacher = Scripted()
    teacher.answer = lambda _: Answer(outputs)  # type: ignore[method-assign]
    [answer] = await (await client_of(teacher)).ask(texts(1), want)
    assert isinstance(answer.error, InternalError)
    assert answer.outputs is None


async def test_cancelling_a_question_cancels_its_requests():
    class Hanging(Scripted):
        cancelled = 0
        both = asyncio.Event()

        async def predict(self, instances, want, fingerprint, operation=""):
            self.requests.append([])
            if len(self.requests) == 2:
                self.both.set()
            try:
                return await asyncio.Future()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise

    teacher = Hanging()
    client = await client_of(teacher)
    asked = asyncio.create_task(client.ask(texts(8), WANT))
    await teacher.both.wait()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert teacher.cancelled == 2


async def test_usage_and_close_reach_the_teacher():
    teacher = Scripted()
    async with await client_of(teacher) as client:
        assert (await client.usage()).asked == 7
    assert teacher.closed
