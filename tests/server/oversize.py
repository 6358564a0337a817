"""Requests beyond each limit, raw over both faces: what is said, how soon, and at what cost."""

import gzip
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import psutil
from processes import ServerProcess

from teacher_api.messages import Instance, Want, request_to_proto
from teacher_api.v1 import teacher_pb2 as pb

LIMIT = 6 * 2**20
BOMB, SMALL_BOMB = bytes(128 * 2**20), bytes(20 * 2**20)  # gRPC's caller packs it while the clock runs
TEXTS = [Instance("a")] * 129
LONG = [Instance("a" * 100_001)]


@dataclass(frozen=True)
class Refusal:
    """The error's code, or gRPC's where the transport refused; seconds; MiB beyond what was held before."""

    code: str
    seconds: float
    mib: float


class Sender:
    """Sends to both faces of a server."""

    def __init__(self, server: ServerProcess) -> None:
        self._channel = grpc.aio.insecure_channel(server.grpc)
        self._predict = self._channel.unary_unary("/teacher_api.v1.TeacherService/Predict")
        self._http = httpx.AsyncClient(base_url=server.url, timeout=20)

    async def grpc(self, data: bytes, **options: grpc.Compression) -> str:
        try:
            await self._predict(data, timeout=20, **options)
        except grpc.aio.AioRpcError as error:
            told = dict(error.trailing_metadata() or ()).get("teacher-error-bin")
            return pb.Error.FromString(told).code if told else error.code().name
        return "OK"

    async def http(self, body: bytes | AsyncIterator[bytes], **headers: str) -> str:
        headers |= {"content-type": "application/json"}
        response = await self._http.post("/v1/predict", content=body, headers=headers)
        return "OK" if response.status_code == 200 else response.json()["error"]["code"]

    async def close(self) -> None:
        await self._channel.close()
        await self._http.aclose()


async def endless() -> AsyncIterator[bytes]:
    """Without a content-length: the limit must hold while the body streams."""
    for _ in range(80):
        yield b" " * 128 * 1024


def protobuf(instances: list[Instance]) -> bytes:
    return request_to_proto(instances, Want()).SerializeToString()


def written(instances: list[Instance]) -> bytes:
    return json.dumps({"instances": [{"text": one.text} for one in instances]}).encode()


PACKED, GZIP = gzip.compress(BOMB), grpc.Compression.Gzip

# how it is sent, and what is said; the transport's own words where a message is not even read
CASES: dict[str, tuple[Callable[[Sender], Awaitable[str]], str]] = {
    "a byte, gRPC": (lambda sender: sender.grpc(b"a" * (LIMIT + 1)), "too_large"),
    "a byte, HTTP": (lambda sender: sender.http(b" " * (LIMIT + 1)), "too_large"),
    "a stream, HTTP": (lambda sender: sender.http(endless()), "too_large"),
    "a text, gRPC": (lambda sender: sender.grpc(protobuf(TEXTS)), "invalid_request"),
    "a text, HTTP": (lambda sender: sender.http(written(TEXTS)), "invalid_request"),
    "a character, gRPC": (lambda sender: sender.grpc(protobuf(LONG)), "invalid_request"),
    "a character, HTTP": (lambda sender: sender.http(written(LONG)), "invalid_request"),
    "a bomb, gRPC": (
        lambda sender: sender.grpc(BOMB, compression=grpc.Compression.Gzip),
        "RESOURCE_EXHAUSTED",
    ),
    "a bomb, HTTP": (lambda sender: sender.http(PACKED, **{"content-encoding": "gzip"}), "invalid_request"),
    "twice as much, gRPC": (lambda sender: sender.grpc(b"a" * (2 * LIMIT + 1)), "RESOURCE_EXHAUSTED"),
}


async def refusal(server: ServerProcess, case: str) -> Refusal:
    """Of a server that has refused the like before: what it loads once is not counted."""
    sender, (send, _) = Sender(server), CASES[case]
    await send(sender)
    held = psutil.Process(server.process.pid).memory_info().rss / 2**20
    forget_highest(server)
    began = time.monotonic()
    code = await send(sender)
    seconds = time.monotonic() - began
    await sender.close()
    return Refusal(code, seconds, highest_mib(server) - held)


def forget_highest(server: ServerProcess) -> None:
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")


def highest_mib(server: ServerProcess) -> float:
    """Most memory that the process had since that was last forgotten."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
