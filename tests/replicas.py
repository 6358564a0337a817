"""Three servers of one teacher that are killed, hung, drained and started while callers never pause."""

import asyncio
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
from processes import STOP_SECONDS, free_port

from student_trainer.teachers import Teacher, connect
from teacher_api.errors import TeacherError
from teacher_api.messages import Answer, Instance, Outputs, Want

TEXTS = [Instance(f"a sentence about this and that, number {number}") for number in range(200)]
CALLERS = 16
READY_SECONDS = 60
CALM_SECONDS = 60  # by then whatever is waited for has long happened

# Servers fork from a process that has imported what is large: they start within a second, so that many
# can. Without grpc: it does not outlive a fork.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["teacher_server.model", "transformers.models.bert.modeling_bert", "fastapi"])


class Replica:
    """A server at `host`, all on the same port, that can be started again."""

    def __init__(self, host: str, port: int, model: Path, log: Path, *flags: str) -> None:
        self.place, self.port, self._log = f"{host}:{port}", port, log
        http_port = free_port()
        self._http = f"http://{host}:{http_port}"
        own = ("--host", host, "--grpc-port", str(port), "--http-port", str(http_port))
        self._flags = ["--model", str(model), "--threads", "1", "--cache-entries", "0", *own, *flags]

    async def start(self, *flags: str) -> None:
        self.process = FORKS.Process(target=_serve, args=([*self._flags, *flags], str(self._log)))
        self.process.start()
        async with asyncio.timeout(READY_SECONDS):
            while not await self._ready():
                assert self.process.is_alive(), self._log.read_text()
                await asyncio.sleep(0.05)

    async def stop(self) -> int | None:
        """Drains it, and returns its exit code."""
        self.signal(signal.SIGTERM)
        await asyncio.to_thread(self.process.join, STOP_SECONDS)
        return self.process.exitcode

    def signal(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.process.kill()
        self.process.join(STOP_SECONDS)

    async def asked(self) -> int:
        """Texts that it was asked for since it started."""
        return int((await self._get("/v1/usage"))["asked"])

    async def fingerprint(self) -> str:
        return str((await self._get("/v1/describe"))["fingerprint"])

    async def _ready(self) -> bool:
        try:
            await self._get("/readyz")
        except httpx.HTTPError:
            return False
        return True

    async def _get(self, path: str) -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=self._http) as client:
            response = (await client.get(path)).raise_for_status()
            return dict(response.json())


def _serve(flags: list[str], log: str) -> None:
    from teacher_server.__main__ import main

    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.exit(main(["serve", *flags]))


@asynccontextmanager
async def replicas(count: int, model: Path, folder: Path, *flags: str) -> AsyncIterator[list[Replica]]:
    """As many, started; killed at the end."""
    port = free_port()
    made = [Replica(f"127.0.0.{n + 2}", port, model, folder / f"{n}.log", *flags) for n in range(count)]
    try:
        await asyncio.gather(*(one.start() for one in made))
        yield made
    finally:
        for one in made:
            one.kill()


def together(servers: Sequence[Replica]) -> Teacher:
    """All of them as one teacher."""
    return connect("grpc://" + "+".join(one.place for one in servers))


class Load:
    """Callers that never pause. Each answer is held against the first one to the same text.

    Attributes:
        calls: that were answered.
        failed: what was raised in place of an answer.
        wrong: answers that are another text's, or none.
    """

    def __init__(self, teacher: Teacher) -> None:
        self.calls = self.wrong = 0
        self.failed: list[TeacherError] = []
        self._teacher = teacher
        self._began: dict[int, float] = {}
        self._over = False

    async def __aenter__(self) -> Self:
        self._pinned = (await self._teacher.describe()).fingerprint
        halves = [await self._ask(TEXTS[:100]), await self._ask(TEXTS[100:])]
        self._right = [answer.outputs for half in halves for answer in half]
        self._callers = [asyncio.create_task(self._call(n)) for n in range(CALLERS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        await asyncio.gather(*self._callers)
        await self._teacher.close()

    async def goes_on(self, calls: int) -> None:
        """Waits for so many more calls, answered or not."""
        goal = self.calls + len(self.failed) + calls
        async with asyncio.timeout(CALM_SECONDS):
            while self.calls + len(self.failed) < goal:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    def oldest(self) -> float:
        """Seconds since the call began that has waited longest."""
        return time.monotonic() - min(self._began.values())

    async def _call(self, caller: int) -> None:
        rng = random.Random(caller)
        while not self._over:
            rows = rng.sample(range(len(TEXTS)), 4)
            self._began[caller] = time.monotonic()
            try:
                answers = await self._ask([TEXTS[row] for row in rows])
            except TeacherError as error:
                self.failed.append(error)
                continue
            self.calls += 1
            pairs = zip(rows, answers, strict=True)
            self.wrong += not all(same(self._right[row], answer.outputs) for row, answer in pairs)

    async def _ask(self, instances: Sequence[Instance]) -> list[Answer]:
        return await self._teacher.predict(instances, Want(), self._pinned)


def same(one: Outputs | None, other: Outputs | None) -> bool:
    return one is not None and other is not None and np.allclose(one.logits, other.logits, rtol=0, atol=1e-5)


async def takes_part(one: Replica) -> None:
    """Waits until callers ask it."""
    asked = await one.asked()
    async with asyncio.timeout(CALM_SECONDS):
        while await one.asked() == asked:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def left_alone(one: Replica) -> None:
    """Waits until callers ask it no longer."""
    seen = -1
    async with asyncio.timeout(CALM_SECONDS):
        while (asked := await one.asked()) != seen:
            seen = asked
            await asyncio.sleep(0.5)


async def roll(servers: Sequence[Replica], restarts: int) -> None:
    """One after the other is drained and started again, and is asked again before the next one goes."""
    for number in range(restarts):
        one = servers[number % len(servers)]
        assert await one.stop() == 0
        await one.start()
        await takes_part(one)
