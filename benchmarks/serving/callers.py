"""Load over gRPC: callers who ask again as soon as they are answered. Messages are written before the
clock starts and read after it has stopped, so that little of the machine goes to the callers themselves."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

SERVICE = "/teacher_api.v1.TeacherService/"
OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),  # each caller has its own connection
    ("grpc.max_receive_message_length", 64 * 2**20),
]


@dataclass(frozen=True)
class Load:
    """Who asks what.

    Attributes:
        callers: at the same time.
        size: texts of one request.
        want: arguments of Want.
        stream: through StreamPredict, a caller's requests all at once.
        cached: all answers must come from the cache; else none may.
        key: API key.
    """

    callers: int
    size: int
    want: dict[str, Any] = field(default_factory=dict)
    stream: bool = False
    cached: bool = False
    key: str = ""


def ask_all(address: str, load: Load, texts: Sequence[str]) -> float:
    """Seconds until all is answered."""
    import uvloop  # noqa: PLC0415

    return uvloop.run(_ask_all(address, load, texts))


def ask_for(address: str, load: Load, texts: Sequence[str], seconds: float) -> list[float]:
    """Asks for so long; the seconds that each request took."""
    import uvloop  # noqa: PLC0415

    return uvloop.run(_ask_for(address, load, texts, seconds))


async def _ask_all(address: str, load: Load, texts: Sequence[str]) -> float:
    messages = iter(_requests(load, texts))
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        call = _stream if load.stream else _unary
        tasks = [group.create_task(call(address, load, messages)) for _ in range(load.callers)]
    seconds = time.perf_counter() - started
    _check(load, len(texts), [data for task in tasks for data, _ in task.result()])
    return seconds


async def _ask_for(address: str, load: Load, texts: Sequence[str], seconds: float) -> list[float]:
    until = time.perf_counter() + seconds
    messages = (one for one in _requests(load, texts) if time.perf_counter() < until)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_unary(address, load, messages)) for _ in range(load.callers)]
    return [took for task in tasks for _, took in task.result()]


async def _unary(address: str, load: Load, messages: Iterator[bytes]) -> list[tuple[bytes, float]]:
    """Each answer as it came, and the seconds that it took."""
    import grpc  # noqa: PLC0415

    metadata = (("authorization", f"Bearer {load.key}"),) if load.key else ()
    answered = []
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        predict = channel.unary_unary(f"{SERVICE}Predict")
        for message in messages:
            started = time.perf_counter()
            data = await predict(message, metadata=metadata)
            answered.append((data, time.perf_counter() - started))
    return answered


async def _stream(address: str, load: Load, messages: Iterator[bytes]) -> list[tuple[bytes, float]]:
    import grpc  # noqa: PLC0415

    async def some() -> AsyncIterator[bytes]:
        for message in messages:
            yield message
            await asyncio.sleep(0)  # the other streams send, too

    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        return [(data, 0.0) async for data in channel.stream_stream(f"{SERVICE}StreamPredict")(some())]


def _requests(load: Load, texts: Sequence[str]) -> list[bytes]:
    from teacher_api.messages import Instance, Want, request_to_proto  # noqa: PLC0415
    from teacher_api.v1 import teacher_pb2 as pb  # noqa: PLC0415

    groups = [texts[start : start + load.size] for start in range(0, len(texts), load.size)]
    asked = [request_to_proto([Instance(text) for text in group], Want(**load.want)) for group in groups]
    if load.stream:
        asked = [pb.StreamPredictRequest(id=number, question=one) for number, one in enumerate(asked)]
    return [one.SerializeToString() for one in asked]


def _check(load: Load, count: int, messages: Sequence[bytes]) -> None:
    from teacher_api.v1 import teacher_pb2 as pb  # noqa: PLC0415

    kind = pb.StreamPredictResponse if load.stream else pb.PredictResponse
    answers = [answer for data in messages for answer in kind.FromString(data).answers]
    assert len(answers) == count
    assert all(one.outputs.logits.data and one.cached == load.cached for one in answers)
    layers = load.want.get("layers", ())
    assert all(len(one.outputs.hidden) == len(layers) for one in answers)
