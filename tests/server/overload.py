"""Callers who come at a rate, whatever becomes of those before them, and what they get."""

import asyncio
import itertools
import time
from dataclasses import dataclass, field

import numpy as np
from faces import OverGrpc, texts
from processes import ServerProcess

from teacher_api.errors import DeadlineExceededError, OverloadedError

TEXT_SECONDS = (
    0.02  # that the model sleeps for each text: a capacity that no neighbour of the machine takes away
)
DEADLINE_SECONDS = 1.0
WARM_SECONDS = 1.0  # until the queue is as long as it gets
USUAL_SECONDS = 0.1  # of one text's answer on a server that is not overloaded, on a busy machine too
fresh = itertools.count()


@dataclass
class Got:
    """What callers got: answers, and seconds to each answer and to each refusal."""

    answers: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    late: int = 0

    def refused_within(self, share: float) -> float:
        return float(np.quantile(self.refusals, share))


@dataclass(frozen=True)
class Overload:
    """The capacity in texts/s, what was got under three times as much, and seconds until all was usual."""

    capacity: float
    goodput: float
    got: Got
    recovery: float


async def overload(server: ServerProcess, seconds: float) -> Overload:
    face = OverGrpc(server)
    capacity = await closed_loop(face, seconds=3.0)
    got = await open_loop(face, 3 * capacity, seconds)
    recovery = await until_usual(face)
    await face.close()
    return Overload(capacity, len(got.answers) / seconds, got, recovery)


async def closed_loop(face: OverGrpc, seconds: float) -> float:
    """Answers per second when 32 callers ask again as soon as they have their answer."""
    began, answers = time.monotonic(), Got()

    async def ask_on() -> None:
        while time.monotonic() < began + seconds:
            await one_call(face, answers)

    await asyncio.gather(*[ask_on() for _ in range(32)])
    return len(answers.answers) / (time.monotonic() - began)  # the last ones come after the end


async def open_loop(face: OverGrpc, rate: float, seconds: float) -> Got:
    """Calls at this rate; what those of the first second got is not counted."""
    warming, got, calls = Got(), Got(), []
    began = time.monotonic()
    for number in range(round(rate * (WARM_SECONDS + seconds))):
        at = number / rate
        await asyncio.sleep(began + at - time.monotonic())
        calls.append(asyncio.create_task(one_call(face, got if at > WARM_SECONDS else warming)))
    await asyncio.gather(*calls)
    return got


async def one_call(face: OverGrpc, got: Got) -> None:
    text = f"slow {TEXT_SECONDS} {next(fresh)}"
    began = time.monotonic()
    try:
        await face.ask(texts(text), seconds=DEADLINE_SECONDS)
        got.answers.append(time.monotonic() - began)
    except OverloadedError as error:
        assert error.retry_after_ms > 0
        got.refusals.append(time.monotonic() - began)
    except (DeadlineExceededError, AssertionError):  # of the server; of gRPC's own client, without our error
        got.late += 1


async def until_usual(face: OverGrpc) -> float:
    began = time.monotonic()
    while True:
        got = Got()
        await one_call(face, got)
        if got.answers and got.answers[0] < USUAL_SECONDS:
            return time.monotonic() - began
