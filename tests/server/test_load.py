"""Many callers: one computation a text, refusal at once when the queue is full, deadlines, limits, drain."""

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable

import httpx
import pytest
from deadlines import overrun, overruns
from faces import FaultyServer, OpenFace, OverGrpc, OverHttp, texts
from grpc_health.v1 import health_pb2, health_pb2_grpc
from overload import overload
from processes import ServerProcess

from teacher_api.errors import (
    NotReadyError,
    OverloadedError,
    TooLargeError,
)
from teacher_api.messages import Instance, Want
from teacher_api.v1 import teacher_pb2 as pb

NewFaulty = Callable[..., FaultyServer]
OpenGrpc = Callable[[ServerProcess], OverGrpc]

BUSY_SECONDS = 0.5  # that a busy machine may come late; on a quiet one 50 ms, see tests/soak

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


async def test_who_stays_pays_when_the_first_to_ask_has_left(
    faulty: FaultyServer, open_grpc: OpenGrpc
) -> None:
    face, text = open_grpc(faulty.running), "asked by three, left by the first"
    before = (await face.stub.GetUsage(pb.GetUsageRequest())).charged
    blocker = asyncio.create_task(face.ask(texts("slow 3.0 before three")))
    await until(lambda: faulty.seen("slow 3.0 before three"))
    askers = []
    for waiting in (2, 3, 4):
        askers.append(asyncio.create_task(face.ask(texts(text))))
        await until_gauge(faulty.running, "teacher_requests_open", waiting)
    askers[0].cancel()
    await until_gauge(faulty.running, "teacher_requests_open", 3)
    assert not blocker.done()
    stayed = await asyncio.gather(*askers[1:])
    assert [(one["charged"], one["cached"]) for (one,) in stayed] == [(1, False), (0, True)]
    await blocker
    assert (await face.stub.GetUsage(pb.GetUsageRequest())).charged == before + 2


async def test_five_hundred_orders_of_cancellation(faulty: FaultyServer, open_grpc: OpenGrpc) -> None:
    """Whoever stays is answered, by one run; when all leave, the text is not computed, and later it is."""
    face, rng = open_grpc(faulty.running), random.Random(5)
    for wave in range(10):
        blocker = asyncio.create_task(face.ask(texts(f"slow 0.1 wave {wave}")))
        await asyncio.sleep(0)
        orders = [leave_in_some_order(faulty, face, f"order {wave} {order}", rng) for order in range(50)]
        await asyncio.wait_for(asyncio.gather(*orders, blocker), 60)


async def leave_in_some_order(faulty: FaultyServer, face: OverGrpc, text: str, rng: random.Random) -> None:
    askers = [asyncio.create_task(face.ask(texts(text))) for _ in range(4)]
    leaving = rng.sample(range(4), k=rng.choice([1, 2, 3, 4]))  # the first, who asked, or those who joined
    for number in leaving:
        await asyncio.sleep(rng.choice([0, 0, 0.002, 0.02, 0.1]))
        askers[number].cancel()
    results = await asyncio.gather(*askers, return_exceptions=True)
    stayed = [result for number, result in enumerate(results) if number not in leaving]
    assert all(isinstance(result, list) and result[0]["error"] is None for result in stayed)
    assert (await face.ask(texts(text)))[0]["error"] is None
    assert faulty.seen(text) <= (1 if stayed else 2)  # who comes when all have left asks anew


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


async def test_three_times_too_many_callers_get_as_much_as_ever(new_faulty: NewFaulty) -> None:
    """At the promise's own figures, which need a quiet machine: tests/soak."""
    found = await overload(new_faulty().running, seconds=5)
    assert found.goodput > 0.7 * found.capacity
    assert found.got.refused_within(0.5) < 0.1
    assert found.got.late < 0.05 * len(found.got.refusals)
    assert found.recovery < 2


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
    seconds = [0.02 + number * 0.004 for number in range(40)]
    calls = [overrun(face, f"late {name} {number}", of) for number, of in enumerate(seconds)]
    assert max(await asyncio.gather(*calls)) < BUSY_SECONDS
    assert not blocker.done()  # all are back before the model is
    await blocker
    await face.ask(texts(f"later {name}"))
    assert sum(faulty.seen(f"late {name} {number}") for number in range(40)) == 0


async def test_a_thousand_deadlines(faulty: FaultyServer, open_grpc: OpenGrpc) -> None:
    """Of 1 to 200 ms, under a load that answers some in time and others not."""
    overrun_by = sorted(await overruns(open_grpc(faulty.running), calls=1000))
    assert overrun_by[950] < BUSY_SECONDS
    assert faulty.seen("late") == 0


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
    health = health_pb2_grpc.HealthStub(faces[0].channel)
    watch = health.Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    work = [asyncio.create_task(face.ask(texts("slow 3.0 drain", "company"))) for face in faces]
    await until_gauge(running, "teacher_requests_open", 2)

    running.process.send_signal(signal.SIGTERM)
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    async with httpx.AsyncClient(base_url=running.url) as client:
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/livez")).status_code == 200
    alive = await health.Check(health_pb2.HealthCheckRequest(service="live"))
    assert alive.status == health_pb2.HealthCheckResponse.SERVING
    work += [asyncio.create_task(face.ask(texts("just in time", "company"))) for face in faces]
    await asyncio.sleep(1.5)
    for face in faces:
        with pytest.raises(NotReadyError):
            await face.ask(texts("too late"))
    for answers in await asyncio.gather(*work):
        assert [one["error"] for one in answers] == [None, None]
    assert await asyncio.to_thread(running.process.wait, 60) == 0
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
