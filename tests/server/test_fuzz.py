"""Whatever bytes arrive, the answer is in the error table, at a bounded cost: no 5xx, no INTERNAL."""

import asyncio
import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import ServerProcess

from teacher_api.v1 import teacher_pb2 as pb
from teacher_server import http_api

Code = grpc.StatusCode
REFUSALS = (Code.OK, Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION)
MESSAGE_BYTES = 8 * 2**20

quick = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class RawGrpc:
    """Predict with whatever bytes."""

    def __init__(self, server: ServerProcess) -> None:
        self.channel = grpc.insecure_channel(server.grpc)
        self.predict = self.channel.unary_unary("/teacher_api.v1.TeacherService/Predict")

    def code(self, data: bytes) -> grpc.StatusCode:
        try:
            self.predict(data, timeout=20)
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)
            return error.code()
        return Code.OK


@pytest.fixture(scope="module")
def raw(server: ServerProcess) -> Iterator[RawGrpc]:
    opened = RawGrpc(server)
    yield opened
    opened.channel.close()


@pytest.fixture(scope="module")
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    headers = {"content-type": "application/json"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=20) as client:
        yield client


# ---- protobuf ----

PLAIN = pb.PredictRequest(instances=[pb.Instance(text="a"), pb.Instance(text="b")], want=pb.Want(logits=True))

tokens = st.builds(
    pb.TokenIds,
    ids=st.lists(st.integers(0, 2**32 - 1), max_size=3),
    type_ids=st.lists(st.integers(0, 2**32 - 1), max_size=3),
)
text = st.text(max_size=8)
instances = st.one_of(
    st.builds(pb.Instance, text=text, text_pair=st.none() | text),
    st.builds(pb.Instance, text=text, tokens=tokens),
)
wants = st.builds(
    pb.Want,
    logits=st.booleans(),
    layers=st.lists(st.integers(0, 5) | st.integers(0, 2**32 - 1), max_size=3),
    pooling=st.integers(0, 9),
    hidden_dtype=st.integers(0, 9),
)


@quick
@given(data=st.binary(max_size=64))
def test_any_bytes(raw: RawGrpc, data: bytes) -> None:
    assert raw.code(data) in REFUSALS


@settings(quick, max_examples=300)
@given(cut=st.integers(0, 40), at=st.integers(0, 40), put=st.binary(max_size=6))
def test_mutated_protobuf(raw: RawGrpc, cut: int, at: int, put: bytes) -> None:
    data = PLAIN.SerializeToString()[: 40 - cut or None]
    assert raw.code(data[:at] + put + data[at + 1 :]) in REFUSALS


@settings(quick, max_examples=300)
@given(asked=st.lists(instances, max_size=3), want=st.none() | wants, right_vocabulary=st.booleans())
def test_any_request(
    raw: RawGrpc, http: httpx.Client, asked: list[Any], want: Any, right_vocabulary: bool
) -> None:
    vocabulary = http.get("/v1/describe").json()["vocabulary_hash"] if right_vocabulary else ""
    request = pb.PredictRequest(instances=asked, want=want, vocabulary_hash=vocabulary)
    assert raw.code(request.SerializeToString()) in REFUSALS


# ---- JSON ----

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def nearly(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects of these names, each present or not, its value as it should be or anything."""
    return st.fixed_dictionaries({}, optional={name: value | any_json for name, value in fields.items()})


ids = st.lists(st.integers(0, 2**32 - 1), max_size=3)
json_instances = nearly(text=st.text(), text_pair=st.text(), token_ids=ids, type_ids=ids)
json_wants = nearly(
    logits=st.booleans(),
    layers=st.lists(st.integers(0, 3), max_size=2),
    pooling=st.sampled_from(["cls", "mean", "none"]),
    hidden_dtype=st.sampled_from(["float32", "float16"]),
)
bodies = nearly(
    instances=st.lists(json_instances, max_size=3),
    want=json_wants,
    fingerprint=st.just(""),
    vocabulary_hash=st.text(),
    encoding=st.sampled_from(["list", "base64"]),
    timeout_ms=st.integers(0, 20_000),
)


@settings(quick, max_examples=300)
@given(body=bodies | any_json)
def test_any_json(http: httpx.Client, body: Any) -> None:
    response = http.post("/v1/predict", content=json.dumps(body))
    assert response.status_code in (200, 412, 422, 504), response.text


@quick
@given(body=st.binary(max_size=64))
def test_any_body(http: httpx.Client, body: bytes) -> None:
    assert http.post("/v1/predict", content=body).status_code == 422


# ---- as much trouble as fits into one message ----


def filled(head: bytes, item: bytes, tail: bytes) -> bytes:
    """A list of as many items as a message may hold."""
    count = (MESSAGE_BYTES - len(head) - len(tail)) // (len(item) + 1)
    return head + b",".join([item] * count) + tail


LARGE_JSON = {
    "wrong ids": filled(b'{"instances":[{"token_ids":[', b'"a"', b"]}]}"),
    "many ids": filled(b'{"instances":[{"token_ids":[', b"1", b"]}]}"),
    "empty instances": filled(b'{"instances":[', b"{}", b"]}"),
    "many instances": filled(b'{"instances":[', b'{"text":""}', b"]}"),
    "many layers": filled(b'{"instances":[{"text":""}],"want":{"layers":[', b"1", b"]}}"),
    "many names": b'{"instances":[],' + b",".join(b'"%x":1' % n for n in range(700_000)) + b"}",
}
LARGE_PROTOBUF = {
    "empty instances": b"\n\0" * (MESSAGE_BYTES // 2),
    "many ids": pb.PredictRequest(
        instances=[pb.Instance(tokens=pb.TokenIds(ids=[1] * (MESSAGE_BYTES - 30)))]
    ).SerializeToString(),
}
SECONDS = 5  # a tenth of it on a quiet machine; a report of every fault took most of a minute
MIB = 512  # and gigabytes


@pytest.mark.parametrize("case", LARGE_JSON)
def test_a_large_body_costs_little(server: ServerProcess, http: httpx.Client, case: str) -> None:
    before, began = highest_mib(server), time.monotonic()
    assert http.post("/v1/predict", content=LARGE_JSON[case]).status_code == 422
    assert time.monotonic() - began < SECONDS
    assert highest_mib(server) - before < MIB


@pytest.mark.parametrize("case", LARGE_PROTOBUF)
def test_a_large_message_costs_little(server: ServerProcess, raw: RawGrpc, case: str) -> None:
    before, began = highest_mib(server), time.monotonic()
    assert raw.code(LARGE_PROTOBUF[case]) is Code.INVALID_ARGUMENT
    assert time.monotonic() - began < SECONDS
    assert highest_mib(server) - before < MIB


def test_a_compressed_bomb_is_not_unpacked(server: ServerProcess, raw: RawGrpc, http: httpx.Client) -> None:
    before, bomb = highest_mib(server), bytes(128 * 2**20)
    with pytest.raises(grpc.RpcError) as refused:
        raw.predict(bomb, timeout=20, compression=grpc.Compression.Gzip)
    assert refused.value.code() is Code.RESOURCE_EXHAUSTED
    packed = http.post("/v1/predict", content=gzip.compress(bomb), headers={"content-encoding": "gzip"})
    assert packed.status_code == 422
    assert highest_mib(server) - before < 64


async def test_a_body_that_trickles_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over ASGI itself: over a socket it would take BODY_SECONDS."""
    monkeypatch.setattr(http_api, "BODY_SECONDS", 0.05)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    async with asyncio.timeout(5):
        await http_api.Gate(unreachable, 1000)({"type": "http", "headers": []}, receive, send)
    assert sent[0]["status"] == 504
    assert (b"connection", b"close") in sent[0]["headers"]


async def unreachable(*_: object) -> None:
    raise AssertionError


def highest_mib(server: ServerProcess) -> float:
    """Most memory that the process ever had; nothing is seen where there is no /proc."""
    status = Path(f"/proc/{server.process.pid}/status")
    lines = status.read_text().splitlines() if status.exists() else ["VmHWM: 0"]
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
