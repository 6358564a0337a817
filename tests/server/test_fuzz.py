"""Whatever bytes arrive, the answer is in the error table, at a bounded cost: no 5xx, no INTERNAL."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fuzzing import (
    REFUSALS,
    STATUSES,
    Code,
    RawGrpc,
    any_json,
    bodies,
    explored,
    mutations,
    quick,
    request_bytes,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from oversize import LIMIT, highest_mib
from processes import ServerProcess

from teacher_api.v1 import teacher_pb2 as pb


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


@pytest.fixture(scope="module")
def vocabulary_hash(http: httpx.Client) -> str:
    hash_: str = http.get("/v1/describe").json()["vocabulary_hash"]
    return hash_


# ---- protobuf ----


@quick
@given(data=st.binary(max_size=64))
def test_any_bytes(raw: RawGrpc, data: bytes) -> None:
    assert raw.code(data) in REFUSALS


@settings(quick, max_examples=300)
@given(data=mutations)
def test_mutated_protobuf(raw: RawGrpc, data: bytes) -> None:
    assert raw.code(data) in REFUSALS


@settings(quick, max_examples=300)
@given(data=st.data())
def test_any_request(raw: RawGrpc, vocabulary_hash: str, data: st.DataObject) -> None:
    assert raw.code(data.draw(request_bytes(vocabulary_hash))) in REFUSALS


# ---- JSON ----


@settings(quick, max_examples=300)
@given(body=bodies | any_json)
def test_any_json(http: httpx.Client, body: Any) -> None:
    response = http.post("/v1/predict", content=json.dumps(body))
    assert response.status_code in STATUSES, response.text


@quick
@given(body=st.binary(max_size=64))
def test_any_body(http: httpx.Client, body: bytes) -> None:
    assert http.post("/v1/predict", content=body).status_code == 422


def test_every_route_of_the_openapi(server: ServerProcess, tmp_path: Path) -> None:
    assert explored(server, examples=100, folder=tmp_path) > 600


# ---- as much trouble as fits into one message ----


def filled(head: bytes, item: bytes, tail: bytes) -> bytes:
    """A list of as many items as a message may hold."""
    count = (LIMIT - len(head) - len(tail)) // (len(item) + 1)
    return head + b",".join([item] * count) + tail


LARGE_JSON = {
    "wrong ids": filled(b'{"instances":[{"token_ids":[', b'"a"', b"]}]}"),
    "many ids": filled(b'{"instances":[{"token_ids":[', b"1", b"]}]}"),
    "empty instances": filled(b'{"instances":[', b"{}", b"]}"),
    "many instances": filled(b'{"instances":[', b'{"text":""}', b"]}"),
    "many layers": filled(b'{"instances":[{"text":""}],"want":{"layers":[', b"1", b"]}}"),
    "many names": b'{"instances":[],' + b",".join(b'"%x":1' % n for n in range(600_000)) + b"}",
}
LARGE_PROTOBUF = {
    "empty instances": b"\n\0" * (LIMIT // 2),
    "many ids": pb.PredictRequest(
        instances=[pb.Instance(tokens=pb.TokenIds(ids=[1] * (LIMIT - 30)))]
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
