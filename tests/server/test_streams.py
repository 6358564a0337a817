"""StreamPredict: out of order by id, an error in the place of its answers, never more than a window holds."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from faces import FaultyServer, OverGrpc, grpc_error, texts
from processes import ServerProcess, StartServer, start_server

from teacher_api.errors import InvalidRequestError, error_from_proto
from teacher_api.messages import Instance, Want, answer_from_proto, request_to_proto
from teacher_api.v1 import teacher_pb2 as pb

PATIENCE_SECONDS = 20
MIB = 2**20
LOGITS = Want()
WHOLE = Want(layers=(0, 1, 2, 3), pooling="none")  # of the tiny model and a long text: 64 KiB
LONG = " a" * 200
FAULTY = Path(__file__).with_name("faulty_server.py")

OpenGrpc = Callable[[ServerProcess], OverGrpc]


class Asking:
    """One stream, raw."""

    def __init__(self, face: OverGrpc) -> None:
        self.call = face.stub.StreamPredict(timeout=3 * PATIENCE_SECONDS)

    async def ask(
        self, number: int, instances: Sequence[Instance], want: Want = LOGITS, **fields: Any
    ) -> None:
        timeout_ms = fields.pop("timeout_ms", 0)
        question = request_to_proto(instances, want, fields.pop("fingerprint", ""))
        await self.call.write(pb.StreamPredictRequest(id=number, question=question, timeout_ms=timeout_ms))

    async def read(self) -> pb.StreamPredictResponse:
        response = await asyncio.wait_for(self.call.read(), PATIENCE_SECONDS)
        assert isinstance(response, pb.StreamPredictResponse), "the stream has ended"
        return response

    async def rest(self) -> dict[int, list[pb.StreamPredictResponse]]:
        """By question, all that comes until the stream ends."""
        await self.call.done_writing()
        found = defaultdict(list)
        async for response in self.call:
            found[response.id].append(response)
        return found


@pytest.fixture
def open_stream(open_grpc: OpenGrpc) -> Callable[[ServerProcess], Asking]:
    return lambda server: Asking(open_grpc(server))


OpenStream = Callable[[ServerProcess], Asking]


def logits_of(responses: Sequence[pb.StreamPredictResponse]) -> list[list[float]]:
    answers = [answer_from_proto(answer) for response in responses for answer in response.answers]
    return [answer.outputs.logits.tolist() for answer in answers if answer.outputs is not None]


async def test_many_questions_are_answered_by_their_ids(
    server: ServerProcess, open_stream: OpenStream, open_grpc: OpenGrpc
) -> None:
    asked = {number: texts(*[f"stream {number} {n}" for n in range(number % 7 + 1)]) for number in range(100)}
    stream = open_stream(server)
    for number, instances in asked.items():
        await stream.ask(number, instances)
    found = await stream.rest()
    assert found.keys() == asked.keys()
    assert {response.fingerprint for parts in found.values() for response in parts} == {server.fingerprint}
    for number in (0, 13, 99):
        alone = [one["logits"] for one in await open_grpc(server).ask(asked[number])]
        for streamed, unary in zip(logits_of(found[number]), alone, strict=True):
            assert streamed == pytest.approx(unary, abs=1e-6)


async def test_what_can_be_answered_at_once_does_not_wait(
    faulty: FaultyServer, open_stream: OpenStream, open_grpc: OpenGrpc
) -> None:
    await open_grpc(faulty.running).ask(texts("known to the stream"))
    stream = open_stream(faulty.running)
    await stream.ask(1, texts("slow 0.5 stream"))
    await stream.ask(2, texts("known to the stream"))
    await stream.ask(3, texts("new to the stream"))
    assert [(await stream.read()).id for _ in range(3)] == [2, 1, 3]


REFUSED: dict[str, tuple[list[Instance], dict[str, Any], tuple[str, str]]] = {
    "no instances": ([], {}, ("invalid_request", "instances")),
    "too many": (texts("a") * 129, {}, ("invalid_request", "instances")),
    "unknown layer": (texts("a"), {"want": Want(layers=(9,))}, ("invalid_request", "want.layers[0]")),
    "another teacher": (texts("a"), {"fingerprint": "0" * 64}, ("fingerprint_mismatch", "fingerprint")),
    "foreign tokens": ([Instance(token_ids=(1,))], {}, ("invalid_request", "vocabulary_hash")),
    "late": (texts("slow 0.3 late"), {"timeout_ms": 100}, ("deadline_exceeded", "")),
    "overloaded": (texts("raise OverloadedError"), {}, ("overloaded", "")),
    "broken": (texts("raise ValueError"), {}, ("internal", "")),
    "cancelled inside": (texts("raise asyncio"), {}, ("internal", "")),
}


async def test_an_error_takes_the_place_of_its_answers(faulty: FaultyServer, open_stream: OpenStream) -> None:
    stream = open_stream(faulty.running)
    for number, (instances, fields, _) in enumerate(REFUSED.values()):
        await stream.ask(number, instances, **fields)
        await stream.ask(100 + number, texts(f"after {number}"))
    found = await stream.rest()
    for number, (_, _, told) in enumerate(REFUSED.values()):
        (response,) = found[number]
        assert not response.answers
        assert (response.error.code, response.error.field) == told
        assert len(logits_of(found[100 + number])) == 1
    assert "the-inside" not in str([found[number] for number in (7, 8)])


async def test_one_bad_text_fails_alone(faulty: FaultyServer, open_stream: OpenStream) -> None:
    stream = open_stream(faulty.running)
    await stream.ask(1, texts("good in a stream", "fail in a stream", "fine in a stream"))
    ((response,),) = (await stream.rest()).values()
    assert [answer.error.code for answer in response.answers] == ["", "internal", ""]
    assert [answer.charged for answer in response.answers] == [1, 0, 1]


@pytest.mark.parametrize(
    ("message", "code"), [(b"\xff", "invalid_request"), (bytes(9 * MIB), "too_large")], ids=["torn", "large"]
)
async def test_an_unreadable_message_ends_the_stream(
    server: ServerProcess, open_grpc: OpenGrpc, message: bytes, code: str
) -> None:
    """But what was asked before it is answered."""
    good = pb.StreamPredictRequest(id=5, question=request_to_proto(texts("before it"), LOGITS))
    call = open_grpc(server).channel.stream_stream("/teacher_api.v1.TeacherService/StreamPredict")(timeout=20)
    await call.write(good.SerializeToString())
    await call.write(message)
    assert pb.StreamPredictResponse.FromString(await call.read()).id == 5
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call.read()
    assert grpc_error(refused.value).code == code
    assert isinstance(grpc_error(refused.value), InvalidRequestError)


async def test_who_leaves_an_operation_has_paid_for_what_was_computed(
    tiny_model: Path, tmp_path: Path, open_grpc: OpenGrpc
) -> None:
    """One text a run: the first is remembered, the second is under way and then nobody's. Asked again in the
    operation, each is charged once, by what the server counts and by what it tells."""
    runs = tmp_path / "runs"
    flags = ("--max-length", "12", "--batch-tokens", "12")
    env = {"FAULTY_RUNS": str(runs)}
    server = FaultyServer(start_server(tiny_model, tmp_path / "log", *flags, env=env, script=FAULTY), runs)
    face = open_grpc(server.running)
    asked = request_to_proto(texts("computed and left", "slow 0.5 under way and left"), LOGITS)
    operation = (("operation-id", "left"),)
    call = face.stub.Predict(asked, metadata=operation)
    await until(lambda: server.seen("slow 0.5 under way and left"))
    call.cancel()
    again = await face.stub.Predict(asked, metadata=operation, timeout=PATIENCE_SECONDS)
    assert [answer.charged for answer in again.answers] == [1, 1]
    assert (await face.stub.GetUsage(pb.GetUsageRequest())).charged == 2
    assert server.running.stop() == 0


# ---- much ----


@pytest.fixture(scope="module")
def narrow(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyServer]:
    """Messages of 1 MiB, so a window of 4; a queue for few more than its texts; no cache that would grow."""
    folder = tmp_path_factory.mktemp("narrow")
    limits = {"message-mib": 1, "max-instances": 96, "queue-texts": 256, "cache-entries": 0}
    flags = [part for name, value in limits.items() for part in (f"--{name}", str(value))]
    env = {"FAULTY_RUNS": str(folder / "runs")}
    running = start_server(tiny_model, folder / "log", *flags, env=env, script=FAULTY)
    yield FaultyServer(running, folder / "runs")
    assert running.stop() == 0


async def test_answers_larger_than_a_message_come_through(
    narrow: FaultyServer, open_stream: OpenStream, open_grpc: OpenGrpc
) -> None:
    asked = texts(*[f"large {number}{LONG}" for number in range(48)])
    call = open_grpc(narrow.running).stub.Predict(request_to_proto(asked, WHOLE), timeout=PATIENCE_SECONDS)
    with pytest.raises(grpc.aio.AioRpcError):
        await call
    stream = open_stream(narrow.running)
    await stream.ask(1, asked, WHOLE)
    found = (await stream.rest())[1]
    assert sum(response.ByteSize() for response in found) > 2 * MIB
    answers = [answer_from_proto(answer) for response in found for answer in response.answers]
    assert [a.outputs.hidden[3].shape for a in answers if a.outputs] == [(128, 32)] * 48
    alone = await open_grpc(narrow.running).stub.Predict(request_to_proto(asked[-1:], WHOLE))
    expected = answer_from_proto(alone.answers[0]).outputs
    assert expected is not None
    assert answers[-1].outputs is not None
    assert abs(answers[-1].outputs.hidden[3] - expected.hidden[3]).max() < 1e-5


async def test_what_no_window_holds_is_refused(narrow: FaultyServer, open_stream: OpenStream) -> None:
    stream = open_stream(narrow.running)
    await stream.ask(1, texts(*[f"larger {number}{LONG}" for number in range(96)]), WHOLE)
    ((response,),) = (await stream.rest()).values()
    assert (response.error.code, response.error.field) == ("too_large", "instances")
    assert not narrow.seen(f"larger 0{LONG}")


async def test_an_answer_that_no_message_holds_fails_alone(
    wide_model: Path, new_server: StartServer, open_stream: OpenStream
) -> None:
    server = new_server("--message-mib", "1", "--max-length", "512", model=wide_model)
    stream = open_stream(server)
    await stream.ask(1, texts("short", " a" * 600), WHOLE)
    ((response,),) = (await stream.rest()).values()
    short, long = response.answers
    assert len(short.outputs.hidden) == 4
    error = error_from_proto(long.error)
    assert (error.code, error.limit) == ("too_large", str(MIB))
    assert long.charged == 1


async def test_a_caller_who_does_not_read_is_not_read_from(
    narrow: FaultyServer, open_stream: OpenStream
) -> None:
    """What the server computes ahead is bounded by its window; when the caller reads, all comes."""
    count, before = 1000, resident_mib(narrow.running)
    asked = [f"unread {number}{LONG}" for number in range(count)]
    stream = open_stream(narrow.running)

    async def write() -> None:
        for number, text in enumerate(asked):
            await stream.ask(number, texts(text), WHOLE)

    writing = asyncio.create_task(write())
    seen = await settled(lambda: sum(text.startswith("unread") for text in narrow.all_seen()))
    assert 16 <= seen <= 256  # 64 fill the window, some more are in the buffers of both transports
    assert resident_mib(narrow.running) - before < 40  # the answers to all are 64 MiB
    reading = asyncio.create_task(collect(stream, count))
    await writing
    assert await reading == set(range(count))


async def test_a_stream_does_not_fill_the_queue(
    narrow: FaultyServer, open_stream: OpenStream, open_grpc: OpenGrpc
) -> None:
    stream = open_stream(narrow.running)
    await stream.ask(0, texts("slow 1.0 queue"))
    for number in range(1, 300):
        await stream.ask(number, texts(f"queued by the stream {number}"))
    (answer,) = await open_grpc(narrow.running).ask(texts("somebody else in the queue"))
    assert answer["error"] is None
    found = await stream.rest()
    assert [len(logits_of(found[number])) for number in range(300)] == [1] * 300


async def test_cancelling_a_stream_cancels_its_work(faulty: FaultyServer, open_stream: OpenStream) -> None:
    stream, log = open_stream(faulty.running), faulty.running.log
    before = log.read_text()
    await stream.ask(0, texts("slow 0.5 cancelled stream"))
    await until(lambda: faulty.seen("slow 0.5 cancelled stream"))
    for number in range(1, 9):
        await stream.ask(number, texts(f"cancelled in a stream {number}"))
    await asyncio.sleep(0.1)
    stream.call.cancel()
    later = open_stream(faulty.running)
    await later.ask(0, texts("after the cancelled stream"))
    assert (await later.read()).id == 0
    assert not [number for number in range(1, 9) if faulty.seen(f"cancelled in a stream {number}")]
    assert log.read_text() == before


async def test_a_caller_who_is_gone_leaves_no_noise(narrow: FaultyServer, open_grpc: OpenGrpc) -> None:
    face = OverGrpc(narrow.running)
    stream = Asking(face)
    for number in range(60):
        await stream.ask(number, texts(f"gone {number}{LONG}"), WHOLE)
    await until(lambda: narrow.seen(f"gone 8{LONG}"))
    await face.close()
    assert (await open_grpc(narrow.running).ask(texts("somebody else")))[0]["error"] is None
    assert "a call failed" not in narrow.running.log.read_text()


async def test_an_answer_for_one_who_just_left_is_no_failure(
    faulty: FaultyServer, open_grpc: OpenGrpc
) -> None:
    """The write finds out first: the server has not read yet that the caller cancelled."""
    before, stream = faulty.running.log.read_text(), Asking(open_grpc(faulty.running))
    await stream.ask(0, texts("stall 0.5 and gone"))
    await until(lambda: faulty.seen("stall 0.5 and gone"))
    await asyncio.sleep(0.2)
    stream.call.cancel()
    assert (await open_grpc(faulty.running).ask(texts("after the stall")))[0]["error"] is None
    assert faulty.running.log.read_text() == before


async def collect(stream: Asking, count: int) -> set[int]:
    return {(await stream.read()).id for _ in range(count)}


async def settled(value: Callable[[], int]) -> int:
    """The value, when it has not changed for a second."""
    last = -1
    async with asyncio.timeout(PATIENCE_SECONDS):
        while last != (last := value()) or not last:  # noqa: ASYNC110
            await asyncio.sleep(1)
    return last


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def resident_mib(server: ServerProcess) -> float:
    """Nothing is seen where there is no /proc."""
    status = Path(f"/proc/{server.process.pid}/status")
    lines = status.read_text().splitlines() if status.exists() else ["VmRSS: 0"]
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024
