"""Whatever may arrive, in numbers: no INTERNAL, no 5xx, no crash. In hundreds: tests/server/test_fuzz.py."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
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
from fuzzing_v2 import (
    V2Grpc,
    V2Http,
    any_v2_body,
    follows,
    nearly_sound,
    nearly_sound_body,
    requests,
    v2_mutations,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import ServerProcess

Record = Callable[[str, Any], None]
RUNS = 2_000_000


@pytest.fixture
def raw(server: ServerProcess) -> Iterator[RawGrpc]:
    opened = RawGrpc(server)
    yield opened
    opened.channel.close()


def test_fifty_thousand_protobufs(raw: RawGrpc, server: ServerProcess, record_property: Record) -> None:
    record_property("promise", "bad input never breaks it: protobuf")
    record_property("size", "25,000 requests, 25,000 strings of bytes")
    vocabulary_hash = httpx.get(f"{server.url}/v1/describe").json()["vocabulary_hash"]
    sent = 0

    def send(data: bytes) -> None:
        nonlocal sent
        sent += 1
        assert raw.code(data) in REFUSALS

    for data in (request_bytes(vocabulary_hash), mutations | st.binary(max_size=64)):
        settings(quick, max_examples=25_000)(given(data)(send))()
    record_property("result", f"{sent} sent, 0 INTERNAL")
    assert server.process.poll() is None


def test_forty_thousand_of_the_open_inference_protocol(
    server: ServerProcess, record_property: Record
) -> None:
    record_property("promise", "bad input never breaks it: the Open Inference Protocol")
    record_property("size", "30,000 over gRPC, 10,000 over HTTP")
    name = httpx.get(f"{server.url}/v1/describe").json()["name"]
    grpc, http = V2Grpc(server, name), V2Http(server, name)
    refused = {Code.INVALID_ARGUMENT, Code.DEADLINE_EXCEEDED, Code.NOT_FOUND}
    answered = 0

    def send(asked: Any) -> None:
        nonlocal answered
        code = grpc.send_bytes(asked) if isinstance(asked, bytes) else grpc.send(asked)
        answered += code is Code.OK
        assert code in {Code.OK, *refused}

    def post(body: Any, more: bytes) -> None:
        nonlocal answered
        status = http.send(body, more)
        answered += status == 200
        assert status in (200, 400)

    for asked in (requests, nearly_sound(), v2_mutations | st.binary(max_size=64)):
        settings(quick, max_examples=10_000)(given(asked)(send))()
    settings(quick, max_examples=5_000)(given(any_v2_body, follows)(post))()
    settings(quick, max_examples=5_000)(given(nearly_sound_body())(lambda asked: post(*asked)))()
    record_property("result", f"{answered} answered, the others refused, 0 INTERNAL, 0 of 5xx")
    grpc.channel.close()
    http.client.close()


def test_ten_thousand_cases_of_the_openapi(
    server: ServerProcess, tmp_path: Path, record_property: Record
) -> None:
    record_property("promise", "bad input never breaks it: OpenAPI")
    record_property("size", "schemathesis, 10,000 cases or more")
    cases = explored(server, examples=2_000, folder=tmp_path)  # of each operation
    record_property("result", f"{cases} cases, 0 faults")
    assert cases >= 10_000


def test_ten_thousand_json_bodies(server: ServerProcess, record_property: Record) -> None:
    record_property("promise", "bad input never breaks it: JSON")
    record_property("size", "10,000 bodies, sensible in part")
    headers = {"content-type": "application/json"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=20) as client:

        def send(body: Any) -> None:
            response = client.post("/v1/predict", content=json.dumps(body))
            assert response.status_code in STATUSES, response.text

        settings(quick, max_examples=10_000)(given(bodies | any_json)(send))()
    record_property("result", "0 of 5xx")


@pytest.mark.parametrize("codec", ["tensor", "sealed", "request", "answer", "json"])
def test_codecs_by_coverage(codec: str, tmp_path: Path, record_property: Record) -> None:
    """A crash, or an exception that is not the codec's own, ends atheris with an exit code."""
    record_property("promise", f"bad input never breaks it: {codec}")
    record_property("size", f"atheris, {RUNS:,} runs")
    command = [str(Path(__file__).with_name("atheris_codecs.py")), codec, f"-runs={RUNS}", "-max_len=512"]
    done = subprocess.run(
        [sys.executable, *command, str(tmp_path)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    covered = re.findall(r"DONE +cov: (\d+)", done.stderr)
    record_property("result", f"no crash, {covered[0]} branches" if covered else "a crash")
    assert done.returncode == 0, done.stderr[-3000:]
