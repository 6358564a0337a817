"""Callers in a hurry: how late each one is back, however its call ended."""

import asyncio
import contextlib
import random
import time

from faces import Face, OverGrpc, texts

from teacher_api.errors import DeadlineExceededError, OverloadedError

TRANSIT_SECONDS = 0.05  # a deadline travels as what is left of it: so much later it may end at the server


async def overrun(face: Face, text: str, seconds: float) -> float:
    """Seconds after the deadline at which the caller had an answer, or was told that there is none."""
    began = time.monotonic()
    # AssertionError: gRPC's own client ends its call first, without an error of ours.
    with contextlib.suppress(DeadlineExceededError, OverloadedError, AssertionError):
        await face.ask(texts(text), seconds=seconds)
    return time.monotonic() - began - seconds


async def overruns(face: OverGrpc, calls: int) -> list[float]:
    """Of calls with 1 to 200 ms, 20 at a time, each of 5 ms of work; the model notes what starts too late."""
    rng, left = random.Random(6), iter(range(calls))
    await face.channel.channel_ready()

    async def ask_on() -> list[float]:
        return [await overrun(face, *hurried(rng, number)) for number in left]

    return [late for some in await asyncio.gather(*[ask_on() for _ in range(20)]) for late in some]


def hurried(rng: random.Random, number: int) -> tuple[str, float]:
    seconds = rng.uniform(0.001, 0.2)
    return f"until {time.monotonic() + seconds + TRANSIT_SECONDS} {number}", seconds
