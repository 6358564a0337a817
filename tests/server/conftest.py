"""Servers with faults inside, and both faces of a server."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cached import NO_FRONT, MakeCache
from faces import Face, FaultyServer, OpenFace, OverGrpc, OverHttp
from processes import ServerProcess, start_server

from teacher_server.cache.memory import MemoryCache
from teacher_server.cache.redis_cache import RedisCache

FAULTY = Path(__file__).with_name("faulty_server.py")


@pytest.fixture(scope="session")
def faulty(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyServer]:
    """One for all tests that leave it alive."""
    folder = tmp_path_factory.mktemp("faulty")
    env = {"FAULTY_RUNS": str(folder / "runs")}
    running = start_server(tiny_model, folder / "log", env=env, script=FAULTY)
    yield FaultyServer(running, folder / "runs")
    assert running.stop() == 0


@pytest.fixture(scope="session")
def small(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyServer]:
    """As `faulty`, with a queue of 128 texts, runs of 128 tokens and answers of 1 MiB."""
    folder = tmp_path_factory.mktemp("small")
    env = {"FAULTY_RUNS": str(folder / "runs")}
    flags = ("--queue-texts", "128", "--batch-tokens", "128", "--message-mib", "1")
    running = start_server(tiny_model, folder / "log", *flags, env=env, script=FAULTY)
    yield FaultyServer(running, folder / "runs")
    assert running.stop() == 0


@pytest.fixture
async def open_grpc() -> AsyncIterator[Callable[[ServerProcess], OverGrpc]]:
    async for opener in _opener(OverGrpc):
        yield opener


@pytest.fixture(params=[OverGrpc, OverHttp], ids=["grpc", "http"])
async def open_face(request: pytest.FixtureRequest) -> AsyncIterator[OpenFace]:
    """Opens either face of a server; a test that asks for it runs over both."""
    async for opener in _opener(request.param):
        yield opener


async def _opener(kind: Any) -> AsyncIterator[Any]:
    opened: list[Face] = []

    def start(server: ServerProcess) -> Face:
        opened.append(kind(server))
        return opened[-1]

    yield start
    for face in opened:
        await face.close()


@pytest.fixture
async def make_cache() -> AsyncIterator[MakeCache]:
    """Opens a Redis cache without a memory of its own."""
    opened: list[RedisCache] = []

    def start(url: str, ttl: int = 0) -> RedisCache:
        opened.append(RedisCache(url, MemoryCache(*NO_FRONT), ttl))
        return opened[-1]

    yield start
    for cache in opened:
        await cache.close()
