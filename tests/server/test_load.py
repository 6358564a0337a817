"""Many callers: one computation a text, refusal at once when the queue is full, deadlines, limits, drain."""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import httpx
import pytest
from faces import FaultyServer, OpenFace, OverGrpc, OverHttp, texts
from grpc_health.v1 import health_pb2, health_pb2_grpc
from processes import ServerProcess

from teacher_api.errors import (
    DeadlineExceededError,
    NotReadyError,
    OverloadedError,
    TooLargeError,
)
from teacher_api.messages import Instance, Want
from teacher_api.v1 import teacher_pb2 as pb

NewFaulty = Callable[..., FaultyServer]
OpenGrpc = Callable[[ServerProcess], OverGrpc]

# ---- one computation ----


async def test_many_askers_of_one_text_run_the_model_once(faulty: FaultyServer, open_grpc: OpenGrpc) -> None:
    face = open_grpc(faulty.running)
    blocker = asyncio.create_task(face.ask(texts("slow 0.3 for askers")))
    answers = await asyncio.gather(*[face.ask(texts("asked by many")) for _ in range(200)])
    await blocker
    assert faulty.seen("asked by many") == 1
    assert sum(one["charged"] for (one,) in answers) == 1
    assert sum(one["cached"] for (one,) in answers) == 199
    assert len({tuple(one["logits"]) for (one,) in answers}) == 1


async def test_same_text_twice_in_one_request(server: ServerProcess, open_face: OpenFace) -> None:
    face = open_face(server)
    twin = f"twin {type(face).__name__}"
    answers = await face.ask(texts(twin, "between", twin))
    assert [one["charged"] for one in answers][::2] == [1, 0]
    assert answers[0]["logits"] == answers[2]["logits"]
    assert all(one["cached"] for one in await face.ask(texts(twin)))


async def test_cancellations_in_any_order(faulty: FaultyServer, open_grpc: OpenGrpc) -> None:
    """Whoever stays is answered, by one run; when all leave, the text is not computed, and later it is."""
    face, rng = open_grpc(faulty.running), random.Random(5)
    for round_ in range(30):
        text = f"cancelled in round {round_}"
        blocker = asyncio.create_task(face.ask(texts(f"slow 0.05 round {round_}")))
        await asyncio.sleep(0)
        askers = [asyncio.create_task(face.ask(texts(text))) for _ in range(6)]
        await asyncio.sleep(rng.choice([0, 0.002, 0.02, 0.06]))
        leaving = rng.sample(range(6), k=rng.choice([1, 3, 5, 6]))
        for number in leaving:
            askers[number].cancel()
        results = await asyncio.wait_for(asyncio.gather(*askers, return_exceptions=True), 10)
        stayed = [result for number, result in enumerate(results) if number not in leaving]
        assert all(isinstance(result, list) and result[0]["error"] is None for result in stayed)
        assert faulty.seen(text) <= 1 + (not stayed)
        assert (await face.ask(texts(text)))[0]["error"] is None
        await blocker


# ---- overload ----


async def test_full_queue_refuses_at_once(small: FaultyServer, open_face: OpenFace) -> None:
    face = open_face(small.running)
    name = type(face).__name__
    blocker = asyncio.create_task(face.ask(texts(f"slow 2.0 blocks {name}")))
    await until(lambda: small.seen(f"slow 2.0 blocks {name}"))
    queued = asyncio.create_task(face.ask(texts(*[f"queued {name} {n}" for n in range(100)])))
    await until_gauge(small.running, "teacher_queue_texts", 100)
    delays = []
    for number in range(10):
        started = time.monotonic()
        with pytest.raises(OverloadedError) as refused:
            await face.ask(texts(*[f"refused {number} {n}" for n in range(29)]))
        delays.append(time.monotonic() - started)
        assert refused.value.retry_after_ms > 0
        assert (refused.value.value, refused.value.limit) == ("100", "128")
    assert not blocker.done()
    assert sorted(delays)[5] < 0.1
    fits = await face.ask(texts(*[f"fits {name} {n}" for n in range(28)]))  # waits its turn
    assert not [one for one in (*fits, *await queued, *await blocker) if one["error"]]


async def test_retry_after_is_a_header_too(small: FaultyServer) -> None:
    async with httpx.AsyncClient(base_url=small.running.url, timeout=20) as client:

        def ask(*contents: str) -> asyncio.Task[httpx.Response]:
            body = {"instances": [{"text": text} for text in contents]}
            return asyncio.create_task(client.post("/v1/predict", json=body))

        blocker = ask("slow 1.0 header")
        await until(lambda: small.seen("slow 1.0 header"))
        queued = ask(*[f"header {n}" for n in range(128)])
        await until_gauge(small.running, "teacher_queue_texts", 128)
        refused = await ask("one more")
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert {(await blocker).status_code, (await queued).status_code} == {200}


# ---- deadlines ----


async def test_deadlines_end_the_wait_and_the_work(faulty: FaultyServer, open_face: OpenFace) -> None:
    face = open_face(faulty.running)
    name = type(face).__name__
    blocker = asyncio.create_task(face.ask(texts(f"slow 1.0 {name}")))
    await until(lambda: faulty.seen(f"slow 1.0 {name}"))
    started = time.monotonic()
    outcomes = await asyncio.gather(
        *[late(face, f"late {name} {number}", 0.02 + number * 0.004) for number in range(40)]
    )
    assert time.monotonic() - started < 0.9  # all are back before the model is
    assert outcomes == [True] * 40
    await blocker
    await face.ask(texts(f"later {name}"))
    assert sum(faulty.seen(f"late {name} {number}") for number in range(40)) == 0


async def late(face: OverGrpc | OverHttp, text: str, seconds: float) -> bool:
    try:
        await face.ask(texts(text), seconds=seconds)
    except DeadlineExceededError:
        return True
    except AssertionError as error:  # gRPC's own client ends its call first
        return "DEADLINE_EXCEEDED" in str(error)
    return False


async def test_callers_who_hang_up_free_the_model(faulty: FaultyServer, open_face: OpenFace) -> None:
    face = open_face(faulty.running)
    name = type(face).__name__
    blocker = asyncio.create_task(face.ask(texts(f"slow 0.5 hang up {name}")))
    await until(lambda: faulty.seen(f"slow 0.5 hang up {name}"))
    gone = asyncio.create_task(face.ask(texts(f"gone {name}")))
    await until_gauge(faulty.running, "teacher_queue_texts", 1)
    gone.cancel()
    await blocker
    await face.ask(texts(f"after hang up {name}"))
    assert faulty.seen(f"gone {name}") == 0


# ---- sizes ----


async def test_one_byte_too_many(server: ServerProcess, open_grpc: OpenGrpc) -> None:
    stub = open_grpc(server).stub
    request = pb.PredictRequest(instances=[pb.Instance(text="a" * 8 * 2**20)])
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.Predict(request)
    assert refused.value.code() is grpc.StatusCode.OUT_OF_RANGE

    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        over = await client.post("/v1/predict", content=b" " * (8 * 2**20 + 1))
        chunked = await client.post("/v1/predict", content=endless_body())
    for response in (over, chunked):
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "too_large"
        assert response.json()["error"]["limit"] == str(8 * 2**20)


async def endless_body() -> AsyncIterator[bytes]:
    """Without a content-length: the limit must hold while the body streams."""
    for _ in range(80):
        yield b" " * 128 * 1024


async def test_answers_too_large_are_refused(small: FaultyServer, open_face: OpenFace) -> None:
    face = open_face(small.running)
    whole = Want(layers=(0, 1, 2, 3), pooling="none")
    long_texts = [Instance(f"{n} " + "word " * 120) for n in range(24)]
    with pytest.raises(TooLargeError):
        await face.ask(long_texts, whole)
    assert len(await face.ask(long_texts[:4], whole)) == 4


# ---- drain ----


async def test_sigterm_finishes_what_runs(new_faulty: NewFaulty) -> None:
    """Not ready at once, over every face; a moment later new questions are sent elsewhere; what runs is
    answered; exit 0."""
    running = new_faulty("--notice-seconds", "1").running
    faces = [OverGrpc(running), OverHttp(running)]
    watch = health_pb2_grpc.HealthStub(faces[0].channel).Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    work = [asyncio.create_task(face.ask(texts("slow 3.0 drain", "company"))) for face in faces]
    await until_gauge(running, "teacher_requests_open", 2)

    running.process.send_signal(signal.SIGTERM)
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    async with httpx.AsyncClient(base_url=running.url) as client:
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/livez")).status_code == 200
    work += [asyncio.create_task(face.ask(texts("just in time", "company"))) for face in faces]
    await asyncio.sleep(1.5)
    for face in faces:
        with pytest.raises(NotReadyError):
            await face.ask(texts("too late"))
    for answers in await asyncio.gather(*work):
        assert [one["error"] for one in answers] == [None, None]
    assert await asyncio.to_thread(running.process.wait, 10) == 0
    for face in faces:
        await face.close()


async def until(condition: Callable[[], object]) -> None:
    async def check() -> object:
        return condition()

    await until_async(check)


async def until_async(condition: Callable[[], Awaitable[object]], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  # the event is another process's
            await asyncio.sleep(0.005)


async def until_gauge(server: ServerProcess, name: str, value: int) -> None:
    async with httpx.AsyncClient(base_url=server.url) as client:

        async def reached() -> bool:
            return f"\n{name} {value}.0\n" in (await client.get("/metrics")).text

        await until_async(reached)
