"""What goes wrong inside stays inside: one bad text, a failing handler, a dead model thread."""

import asyncio
import signal
import time
from collections.abc import Callable

import httpx
import pytest
from checkups import checkups
from faces import FaultyServer, OpenFace, OverGrpc, OverHttp, texts
from processes import RedisProcess, ServerProcess, StartServer

from teacher_api.errors import NotReadyError, TeacherError
from teacher_api.messages import Instance

SECRET = "the-inside-of-the-server"

NewFaulty = Callable[..., FaultyServer]


@pytest.mark.parametrize("fault", ["fail", "memory", "nan"])
async def test_one_bad_text_fails_alone(faulty: FaultyServer, open_face: OpenFace, fault: str) -> None:
    face = open_face(faulty.running)
    name = f"{fault} {type(face).__name__}"
    good = [f"{name} is beside {number}" for number in range(63)]
    answers = await face.ask(
        texts(*[f"good {text}" for text in good[:40]], name, *[f"fine {t}" for t in good[40:]])
    )
    failed = [number for number, answer in enumerate(answers) if answer["error"]]
    assert failed == [40]
    assert (answers[40]["error"], answers[40]["charged"]) == ("internal", 0)
    assert all(
        answer["charged"] == 1 and len(answer["logits"]) == 3 for answer in answers if not answer["error"]
    )
    assert (await face.ask(texts(f"after {name}")))[0]["error"] is None


async def test_failure_is_not_remembered(faulty: FaultyServer, open_grpc: Callable[..., OverGrpc]) -> None:
    face = open_grpc(faulty.running)
    for _ in range(2):
        (answer,) = await face.ask(texts("fail twice"))
        assert (answer["error"], answer["cached"]) == ("internal", False)
    assert faulty.seen("fail twice") == 2


RAISED = {
    "ValueError": "internal",
    "KeyError": "internal",
    "RuntimeError": "internal",
    "TypeError": "internal",
    "OSError": "internal",
    "MemoryError": "internal",
    "TimeoutError": "internal",
    "AssertionError": "internal",
    "asyncio": "internal",
    "OverloadedError": "overloaded",
    "NotReadyError": "not_ready",
    "DeadlineExceededError": "deadline_exceeded",
}


@pytest.mark.parametrize("name", RAISED)
async def test_every_call_is_answered(faulty: FaultyServer, open_face: OpenFace, name: str) -> None:
    started = time.monotonic()
    with pytest.raises(TeacherError) as raised:
        await open_face(faulty.running).ask(texts(f"raise {name}"))
    assert time.monotonic() - started < 2  # 100 ms on a quiet machine
    assert raised.value.code == RAISED[name]
    assert raised.value.code != "internal" or SECRET not in str(raised.value)


async def test_logs_hold_no_text(faulty: FaultyServer, open_grpc: Callable[..., OverGrpc]) -> None:
    await open_grpc(faulty.running).ask(texts("fail with a-most-private-sentence"))
    log = faulty.running.log.read_text()
    assert "RuntimeError" in log
    assert "a-most-private-sentence" not in log
    assert SECRET not in log


async def test_health_answers_while_the_model_works(faulty: FaultyServer) -> None:
    """Each check within its deadline of a second; on a quiet machine within 100 ms, see tests/soak."""
    delays = await checkups(faulty.running, batches=2, name="health")
    assert sorted(delays)[len(delays) // 2] < 0.1


@pytest.mark.parametrize("lanes", ["1", "2"])
async def test_death_of_the_model_is_visible(new_faulty: NewFaulty, lanes: str) -> None:
    """Who waits is told at once, over either face, readiness ends within a second, the process fails;
    also while a second lane is alive."""
    running = new_faulty("--threads", lanes).running
    faces = [OverGrpc(running), OverHttp(running)]
    asked = [face.ask(texts("slow 0.2 before", "die now")) for face in faces]
    told = await asyncio.gather(*asked, return_exceptions=True)
    died = time.monotonic()
    assert [type(error) for error in told] == [NotReadyError, NotReadyError], told
    assert not await is_ready(running)
    assert time.monotonic() - died < 1
    assert await asyncio.to_thread(running.process.wait, 60) == 1
    for face in faces:
        await face.close()


async def is_ready(server: ServerProcess) -> bool:
    async with httpx.AsyncClient() as client:
        try:
            return (await client.get(f"{server.url}/readyz")).status_code == 200
        except httpx.TransportError:  # gone already
            return False


async def test_answers_stay_right_while_redis_comes_and_goes(
    new_server: StartServer, redis_server: RedisProcess, open_grpc: Callable[..., OverGrpc]
) -> None:
    face = open_grpc(new_server("--cache", redis_server.url, "--cache-entries", "0"))
    question = texts("one", "two", "three")
    first = [one["logits"] for one in await face.ask(question)]

    async def answered(*, cached: bool) -> float:
        started = time.monotonic()
        answers = await face.ask(question)
        assert all(
            one["logits"] == pytest.approx(right, abs=1e-6) for one, right in zip(answers, first, strict=True)
        )
        assert all(one["cached"] is cached for one in answers)
        return time.monotonic() - started

    await until_cached(face, question)
    await answered(cached=True)
    redis_server.signal(signal.SIGSTOP)
    await answered(cached=False)
    assert min([await answered(cached=False) for _ in range(5)]) < 0.1
    redis_server.kill()
    await answered(cached=False)
    redis_server.start()  # empty
    await until_cached(face, question)


async def until_cached(face: OverGrpc, question: list[Instance]) -> None:
    async with asyncio.timeout(5):
        while not all(one["cached"] for one in await face.ask(question)):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
