"""The Open Inference Protocol: whatever arrives is answered as its shapes say, or refused as it says."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest
from fuzzing import Code, quick
from fuzzing_v2 import (
    V2Grpc,
    V2Http,
    any_v2_body,
    follows,
    nearly_sound,
    nearly_sound_body,
    packed,
    request,
    requests,
    v2_mutations,
)
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from oversize import highest_mib
from processes import ServerProcess
from test_fuzz import MIB, SECONDS, filled

from teacher_api.open_inference import inference_pb2 as pb

REFUSED = (Code.INVALID_ARGUMENT, Code.DEADLINE_EXCEEDED)  # the latter by their own parameter `timeout`


@pytest.fixture(scope="module")
def model(server: ServerProcess) -> str:
    name: str = httpx.get(f"{server.url}/v1/describe").json()["name"]
    return name


@pytest.fixture(scope="module")
def over_grpc(server: ServerProcess, model: str) -> Iterator[V2Grpc]:
    opened = V2Grpc(server, model)
    yield opened
    opened.channel.close()


@pytest.fixture(scope="module")
def over_http(server: ServerProcess, model: str) -> Iterator[V2Http]:
    opened = V2Http(server, model)
    yield opened
    opened.client.close()


@settings(quick, max_examples=200)
@given(asked=requests)
@example(asked=request(packed(b"a")))
def test_any_request(over_grpc: V2Grpc, asked: pb.ModelInferRequest) -> None:
    assert over_grpc.send(asked) in (Code.OK, *REFUSED), asked


@quick
@given(data=v2_mutations | st.binary(max_size=64))
def test_any_bytes(over_grpc: V2Grpc, data: bytes) -> None:
    assert over_grpc.send_bytes(data) in (Code.OK, Code.NOT_FOUND, *REFUSED)


@settings(quick, max_examples=200)
@given(asked=nearly_sound())
def test_a_request_with_a_fault(over_grpc: V2Grpc, asked: pb.ModelInferRequest) -> None:
    code = over_grpc.send(asked)
    event(code.name)
    assert code in (Code.OK, *REFUSED), asked


@settings(quick, max_examples=200)
@given(body=any_v2_body, more=follows)
def test_any_body(over_http: V2Http, body: Any, more: bytes) -> None:
    assert over_http.send(body, more) in (200, 400)


@settings(quick, max_examples=200)
@given(asked=nearly_sound_body())
def test_a_body_with_a_fault(over_http: V2Http, asked: tuple[dict[str, Any], bytes]) -> None:
    assert over_http.send(*asked) in (200, 400)


def test_sound_requests_are_answered(over_grpc: V2Grpc, over_http: V2Http) -> None:
    """Or the tests above would only ever see refusals."""
    assert over_grpc.send(request(packed(b"sound"))) is Code.OK
    tensor = {"name": "text", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 9}}
    for outputs in ([], [{"name": "hidden_states", "parameters": {"binary_data": True}}, {"name": "mask"}]):
        body = {"inputs": [tensor], "outputs": outputs, "parameters": {"layers": "0,1", "pooling": "none"}}
        assert over_http.send(body, packed(b"a", b"")) == 200


@pytest.mark.parametrize("path", ["infer", "versions/{version}/infer"])
def test_openapi_describes_it(server: ServerProcess, model: str, path: str) -> None:
    """What is sent, what comes, which names there are: schemathesis takes it from there (test_fuzz.py)."""
    told = httpx.get(f"{server.url}/openapi.json").json()
    described = told["paths"][f"/v2/models/{{name}}/{path}"]["post"]
    bodies = described["requestBody"]["content"]
    assert (
        set(bodies)
        == {"application/json", "application/octet-stream"}
        == set(described["responses"]["200"]["content"])
    )
    assert "$ref" not in json.dumps(bodies)
    assert bodies["application/json"]["schema"]["required"] == ["inputs"]
    known = {one["name"]: one["schema"].get("enum") for one in described["parameters"]}
    assert known["name"] == [model]
    assert known.get("version") == ([server.fingerprint] if "{version}" in path else None)
    for status in ("4XX", "5XX"):
        (schema,) = (one["schema"] for one in described["responses"][status]["content"].values())
        assert schema == {"$ref": "#/components/schemas/Failure"}


def test_openapi_has_all_its_paths(server: ServerProcess) -> None:
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    of_model = "/v2/models/{name}"
    assert {path for path in paths if path.startswith("/v2")} == {
        *("/v2", "/v2/health/live", "/v2/health/ready"),
        *(f"{of_model}{end}" for end in ("", "/ready", "/infer")),
        *(f"{of_model}/versions/{{version}}{end}" for end in ("", "/ready", "/infer")),
    }


TENSOR = b'{"name":"text","datatype":"BYTES","shape":[1]'
LARGE = {
    "many inputs": filled(b'{"inputs":[', b"{}", b"]}"),
    "sound inputs": filled(b'{"inputs":[', TENSOR + b',"data":["a"]}', b"]}"),
    "many outputs": filled(b'{"inputs":[],"outputs":[', b'{"name":"a"}', b"]}"),
    "a long shape": filled(b'{"inputs":[{"name":"text","datatype":"BYTES","shape":[', b"1", b"]}]}"),
    "many texts": filled(b'{"inputs":[' + TENSOR + b',"data":[', b'""', b"]}]}"),
    "texts in texts": filled(b'{"inputs":[' + TENSOR + b',"data":[', b"[]", b"]}]}"),
    "many parameters": b'{"inputs":[],"parameters":{'
    + b",".join(b'"%x":1' % n for n in range(600_000))
    + b"}}",
    "deep": b'{"inputs":' + b"[" * 4_000_000,
}


def cpu_seconds(server: ServerProcess) -> float:
    used = psutil.Process(server.process.pid).cpu_times()
    return float(used.user + used.system)


@pytest.mark.parametrize("case", LARGE)
def test_a_large_body_costs_little(server: ServerProcess, model: str, case: str) -> None:
    before, began = highest_mib(server), cpu_seconds(server)
    response = httpx.post(f"{server.url}/v2/models/{model}/infer", content=LARGE[case], timeout=60)
    assert response.status_code == 400, response.text
    assert cpu_seconds(server) - began < SECONDS
    assert highest_mib(server) - before < MIB


LARGE_PROTOBUF = {
    "many inputs": b"\x2a\0" * 3_000_000,  # field 5
    "many raw contents": b"\x3a\0" * 3_000_000,  # field 7
    "many texts": request(
        contents={"bytes_contents": [b""] * 3_000_000}, shape=[3_000_000]
    ).SerializeToString(),
    "many empty texts": request(bytes(6_000_000), shape=[1_500_000]).SerializeToString(),
}


@pytest.mark.parametrize("case", LARGE_PROTOBUF)
def test_a_large_message_costs_little(
    server: ServerProcess, over_grpc: V2Grpc, model: str, case: str
) -> None:
    named = pb.ModelInferRequest(model_name=model).SerializeToString()
    before = highest_mib(server)
    assert over_grpc.send_bytes(LARGE_PROTOBUF[case] + named) is Code.INVALID_ARGUMENT
    assert highest_mib(server) - before < MIB
