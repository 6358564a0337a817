"""Answers that are known already: through gRPC at 64 texts a call, from memory and from Redis, and what
a bare MGET of the same values gives from Python."""

import asyncio
import contextlib
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bench import Setting, process_of, serving
from callers import Load, ask_all

SIZE = 64
CALLERS = 4
REPEATS = 8  # of the same texts in one measurement through gRPC
READS = 100  # and straight from Redis, which takes a tenth of the time: a shorter one is noise
BARE = ("bare MGET, asyncio", "bare MGET")
ASK, REPEAT = Load(CALLERS, SIZE), Load(CALLERS, SIZE, cached=True)


def run(setting: Setting) -> dict[str, dict[str, Any]]:
    texts = setting.sentences[: setting.count]
    with contextlib.ExitStack() as stack:
        callers = stack.enter_context(process_of(passive=False))

        def hits(address: str) -> Callable[[], float]:
            callers.submit(ask_all, address, ASK, texts).result()
            time.sleep(1)  # the writes to Redis follow the answers
            return lambda: callers.submit(ask_all, address, REPEAT, texts * REPEATS).result()

        memory = stack.enter_context(serving(setting.folder, setting.flags, cached=True))
        runs = {"gRPC, memory": hits(memory.grpc)}
        if shutil.which("redis-server"):
            url = stack.enter_context(_redis())
            flags = [*setting.flags, "--cache", url, "--cache-entries", "0"]
            shared = stack.enter_context(serving(setting.folder, flags, cached=True))
            runs["gRPC, Redis"] = hits(shared.grpc)
            runs["the cache's get_many, Redis"] = lambda: asyncio.run(_get_many(url))
            runs[BARE[0]] = lambda: asyncio.run(_mget_asyncio(url))
            runs[BARE[1]] = lambda: _mget(url)
        rounds = [{name: once() for name, once in runs.items()} for _ in range(setting.rounds)]
    repeats = {name: REPEATS if name.startswith("gRPC") else READS for name in runs}
    seconds = [{name: one[name] / repeats[name] for name in runs} for one in rounds]
    return {name: _row(name, seconds, len(texts)) for name in runs}


def _row(name: str, rounds: Sequence[Mapping[str, float]], count: int) -> dict[str, Any]:
    """Medians over the rounds: of the speed, and of its ratios to the round's bare MGETs. Seconds are of all
    texts once."""
    row: dict[str, Any] = {"texts_per_second": round(count / statistics.median(one[name] for one in rounds))}
    for bare in [bare for bare in BARE if bare in rounds[0]]:
        row[f"x {bare}"] = round(statistics.median(one[bare] / one[name] for one in rounds), 3)
    return row


@contextlib.contextmanager
def _redis() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--save", "", "--loglevel", "warning"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        time.sleep(1)
        yield f"redis://127.0.0.1:{port}/0"
        process.terminate()


def _groups(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for _ in range(READS):
        yield from (keys[start : start + SIZE] for start in range(0, len(keys), SIZE))


def _mget(url: str) -> float:
    import redis  # noqa: PLC0415

    with redis.Redis.from_url(url) as client:
        keys = client.keys("dkd:*")
        started = time.perf_counter()
        for group in _groups(keys):
            client.mget(group)
        return time.perf_counter() - started


async def _mget_asyncio(url: str) -> float:
    from redis.asyncio import Redis  # noqa: PLC0415

    async with Redis.from_url(url) as client:
        keys = await client.keys("dkd:*")
        started = time.perf_counter()
        for group in _groups(keys):
            await client.mget(group)
        return time.perf_counter() - started


async def _get_many(url: str) -> float:
    from redis.asyncio import Redis  # noqa: PLC0415

    from teacher_server.cache import open_cache  # noqa: PLC0415

    async with Redis.from_url(url) as client:
        keys = [key.removeprefix(b"dkd:") for key in await client.keys("dkd:*")]
    cache = open_cache(url, entries=0, max_bytes=0, ttl_seconds=0)
    await cache.get_many(keys[:1])  # connected before the clock starts, as the bare ones are
    started = time.perf_counter()
    for group in _groups(keys):
        assert None not in await cache.get_many(group)
    seconds = time.perf_counter() - started
    await cache.close()
    return seconds
