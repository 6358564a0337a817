"""Calls of every kind, for as long as one likes, and what a process holds: the leak test in two sizes."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import httpx
import psutil
from faces import OverGrpc
from processes import ServerProcess

from teacher_api.messages import Instance, Want, request_to_proto
from teacher_api.v1 import teacher_pb2 as pb

AT_ONCE = 32
DIFFERENT_TEXTS = 5000
PREDICT = "/teacher_api.v1.TeacherService/Predict"
MALFORMED = b"\xff"


@dataclass(frozen=True)
class Held:
    """What a server's process holds: MiB of memory, open files, threads, asyncio tasks."""

    mib: float
    files: int
    threads: int
    tasks: int


async def held(server: ServerProcess) -> Held:
    """Once nobody asks any more: sockets of callers who left take a moment to close."""
    process = psutil.Process(server.process.pid)
    async with httpx.AsyncClient(base_url=server.url) as client:
        await asyncio.sleep(1)
        metrics = dict(line.rsplit(" ", 1) for line in (await client.get("/metrics")).text.splitlines())
        assert metrics["teacher_requests_open"] == metrics["teacher_queue_texts"] == "0.0"
        tasks = int(float(metrics["teacher_tasks"]))
        return Held(process.memory_info().rss / 2**20, process.num_fds(), process.num_threads(), tasks)


async def ask_anything(server: ServerProcess, calls: int, seed: int) -> Counter[str]:
    """So many calls, a tenth of them wrong, a tenth cancelled, a twentieth over HTTP; what came of them."""
    face, rng = OverGrpc(server), random.Random(seed)
    outcomes: Counter[str] = Counter()
    left = iter(range(calls))
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as http:
        asker = Asker(face, http, rng)
        await asyncio.gather(*[work(asker, left, outcomes) for _ in range(AT_ONCE)])
    await face.close()
    return outcomes


async def work(asker: "Asker", left: Iterator[int], outcomes: Counter[str]) -> None:
    for _ in left:
        outcomes[await asker.any_call()] += 1


async def growth(server: ServerProcess, calls: int) -> tuple[Held, Held]:
    """What it holds after a tenth of the calls, by when all that is kept for good is there, and after all."""
    await ask_anything(server, calls // 10, seed=1)
    warm = await held(server)
    outcomes = await ask_anything(server, calls - calls // 10, seed=2)
    assert set(outcomes) == {"OK", "cancelled", "INVALID_ARGUMENT", "internal"}, outcomes
    return warm, await held(server)


class Asker:
    """One call after another, each of a kind that the generator chooses."""

    def __init__(self, face: OverGrpc, http: httpx.AsyncClient, rng: random.Random) -> None:
        self._face, self._http, self._rng = face, http, rng
        self._bytes = face.channel.unary_unary(PREDICT)

    async def any_call(self) -> str:
        draw, text = self._rng.random(), f"text {self._rng.randrange(DIFFERENT_TEXTS)}"
        if draw < 0.05:
            return await self._over_http(text)
        if draw < 0.15:
            return await self._cancelled(text)
        return await self._answered(self._wrong() if draw < 0.25 else question(text))

    def _wrong(self) -> bytes:
        kind = self._rng.randrange(20)
        return question("fail endurance") if not kind else MALFORMED if kind % 2 else question("a", layer=99)

    async def _answered(self, data: bytes) -> str:
        try:
            answer = pb.PredictResponse.FromString(await self._bytes(data, timeout=20))
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return answer.answers[0].error.code or "OK"

    async def _cancelled(self, text: str) -> str:
        call = self._bytes(question(f"slow 0.002 {text}"), timeout=20)
        await asyncio.sleep(self._rng.random() / 200)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        return "cancelled"

    async def _over_http(self, text: str) -> str:
        response = await self._http.post("/v1/predict", json={"instances": [{"text": text}]})
        return "OK" if response.status_code == 200 else str(response.status_code)


def question(text: str, layer: int | None = None) -> bytes:
    want = Want() if layer is None else Want(layers=(layer,))
    return request_to_proto([Instance(text)], want).SerializeToString()
