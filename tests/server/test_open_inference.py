"""The Open Inference Protocol: NVIDIA's own client over both faces, and what is refused.

The server's model has a name with a slash, as hub names do.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from faces import FaultyServer, grpc_error, texts
from fuzzing_v2 import packed, request
from processes import ServerProcess

from teacher_api.errors import InvalidRequestError, NotFoundError
from teacher_api.messages import Instance, Outputs, Want, answer_from_proto, request_to_proto
from teacher_api.open_inference import inference_pb2 as pb
from teacher_api.open_inference.inference_pb2_grpc import GRPCInferenceServiceStub
from teacher_api.v1.teacher_pb2_grpc import TeacherServiceStub

Json = dict[str, Any]
Code = grpc.StatusCode

CLIENT = Path(__file__).with_name("triton_client.py")
PATIENCE_SECONDS = 20


class Triton:
    """NVIDIA's client in its process."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.model = httpx.get(f"{server.url}/v1/describe").json()["name"]
        self._process = subprocess.Popen(
            [sys.executable, str(CLIENT), server.grpc, server.url.removeprefix("http://")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def call(self, kind: str, method: str, *arguments: object, **call: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        told = {"kind": kind, "method": method, "arguments": arguments} | call
        self._process.stdin.write(f"{json.dumps(told)}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def infer(self, kind: str, instances: list[Instance], **call: Any) -> Any:
        inputs = {"text": [one.text for one in instances]}
        if instances and instances[0].text_pair is not None:
            inputs["text_pair"] = [one.text_pair or "" for one in instances]
        usual = {"outputs": [], "parameters": {}, "input_options": {}, "output_options": {}, "more": {}}
        return self.call(kind, "infer", **{"model": self.model, "texts": inputs} | usual | call)

    def close(self) -> None:
        self._process.communicate(timeout=PATIENCE_SECONDS)
        assert self._process.returncode == 0


@pytest.fixture(scope="module")
def triton(server: ServerProcess) -> Iterator[Triton]:
    opened = Triton(server)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE_SECONDS) as client:
        yield client


@pytest.fixture(params=["grpc", "http"])
def kind(request: pytest.FixtureRequest) -> str:
    """One of the client's two transports after the other."""
    return str(request.param)


def native(server: ServerProcess, instances: list[Instance], want: Want) -> list[Outputs]:
    """What the contract of our own says."""
    with grpc.insecure_channel(server.grpc) as channel:
        response = TeacherServiceStub(channel).Predict(request_to_proto(instances, want))
    outputs = [answer_from_proto(answer).outputs for answer in response.answers]
    return [one for one in outputs if one is not None]


def test_health_and_metadata(triton: Triton, kind: str) -> None:
    fingerprint = triton.server.fingerprint
    assert triton.call(kind, "is_server_live") is True
    assert triton.call(kind, "is_server_ready") is True
    assert triton.call(kind, "is_model_ready", triton.model) is True
    assert triton.call(kind, "is_model_ready", triton.model, fingerprint) is True
    assert triton.call(kind, "is_model_ready", triton.model, "1") is False
    assert triton.call(kind, "is_model_ready", "another") is False
    assert triton.call(kind, "get_server_metadata")["name"] == "teacher-server"
    for arguments in ([triton.model], [triton.model, fingerprint]):
        told = triton.call(kind, "get_model_metadata", *arguments)
        assert (told["name"], told["versions"]) == (triton.model, [fingerprint])
        assert [one["name"] for one in told["inputs"]] == ["text", "text_pair"]
        logits, hidden, _ = told["outputs"]
        assert (logits["datatype"], [int(size) for size in logits["shape"]]) == ("FP32", [-1, 3])
        assert [int(size) for size in hidden["shape"]] == [-1, -1, 32]


PAIRS = [Instance("Is this a paraphrase?", "This is a paraphrase."), Instance("A premise.", "")]
WIRES = {  # how the client writes, and how it wants to be answered
    "binary": {},
    "JSON": {
        "input_options": {"binary_data": False},
        "outputs": ["logits"],
        "output_options": {"binary_data": False},
    },
    "binary out": {"input_options": {"binary_data": False}, "outputs": ["logits"]},
}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("asked", [texts("a fine day", "", "Ünïcödé 😀 \x00"), PAIRS], ids=["texts", "pairs"])
def test_logits_are_the_contracts(triton: Triton, kind: str, wire: str, asked: list[Instance]) -> None:
    expected = [one.logits for one in native(triton.server, asked, Want())]
    result = triton.infer(kind, asked, **WIRES[wire])
    logits = result["tensors"].pop("logits")
    assert logits["dtype"] == "float32"
    np.testing.assert_array_equal(np.array(logits["values"], np.float32), expected)
    assert not result["tensors"]
    assert result["version"] == triton.server.fingerprint
    assert result["parameters"] == {"charged": 0, "cached": len(asked)}


HIDDEN = {
    "cls": ({"layers": "0,3"}, Want(layers=(0, 3))),
    "one layer": ({"layers": 2, "pooling": "mean"}, Want(layers=(2,), pooling="mean")),
    "half": ({"layers": "3, 1", "dtype": "FP16"}, Want(layers=(3, 1), hidden_dtype="float16")),
    "whole": ({"layers": "1,2", "pooling": "none"}, Want(layers=(1, 2), pooling="none")),
}


@pytest.mark.parametrize("case", HIDDEN)
def test_hidden_states_are_the_contracts(triton: Triton, kind: str, case: str) -> None:
    parameters, want = HIDDEN[case]
    asked = texts("a short one", "one that is somewhat longer than the other one")
    expected = native(triton.server, asked, want)
    tensors = triton.infer(kind, asked, parameters=parameters)["tensors"]
    assert list(tensors) == ["logits", "hidden_states", "mask"][: 2 + (want.pooling == "none")]
    hidden = np.array(tensors["hidden_states"]["values"], tensors["hidden_states"]["dtype"])
    assert hidden.dtype == want.hidden_dtype
    for row, outputs in enumerate(expected):
        for place, layer in enumerate(want.layers):
            states = outputs.hidden[layer]
            assert (hidden[row, place][: len(states)] == states).all()
            assert want.pooling != "none" or not hidden[row, place][len(states) :].any()
        if outputs.mask is not None:
            mask = np.array(tensors["mask"]["values"][row])
            assert mask.tolist() == [1] * len(outputs.mask) + [0] * (len(mask) - len(outputs.mask))


def test_outputs_can_be_named(triton: Triton, kind: str) -> None:
    call = {"parameters": {"layers": "1", "pooling": "none"}, "outputs": ["mask", "hidden_states"]}
    assert list(triton.infer(kind, texts("named"), **call)["tensors"]) == ["mask", "hidden_states"]


def test_who_asks_sees_what_it_cost(triton: Triton, kind: str) -> None:
    asked = texts(f"cost over {kind}", f"more cost over {kind}", f"cost over {kind}")
    assert triton.infer(kind, asked)["parameters"] == {"charged": 2, "cached": 1}
    assert triton.infer(kind, asked)["parameters"] == {"charged": 0, "cached": 3}


def test_a_request_can_be_pinned_named_and_limited(triton: Triton, kind: str) -> None:
    more = {"model_version": triton.server.fingerprint, "request_id": "seven", "timeout": 20_000_000}
    assert triton.infer(kind, texts("pinned"), more=more)["id"] == "seven"
    error = triton.infer(kind, texts("pinned"), more={"model_version": "1"})
    assert error["status"] == {"grpc": "StatusCode.NOT_FOUND", "http": "404"}[kind]
    error = triton.infer(kind, texts(f"late over {kind}"), more={"timeout": 1})
    assert error["status"] == {"grpc": "StatusCode.DEADLINE_EXCEEDED", "http": "504"}[kind]


WRONG: dict[str, tuple[Json, str]] = {
    "no such layer": ({"parameters": {"layers": "9"}}, "no such layer"),
    "no number": ({"parameters": {"layers": "one"}}, "as 0,2,4"),
    "no such pooling": ({"parameters": {"layers": "1", "pooling": "max"}}, "parameters.pooling"),
    "no such dtype": ({"parameters": {"layers": "1", "dtype": "BF16"}}, "FP32, FP16"),
    "pooling of nothing": ({"parameters": {"pooling": "cls"}}, "need layers"),
    "no such parameter": ({"parameters": {"temperature": 2}}, "layers, pooling, dtype, timeout"),
    "no such output": ({"outputs": ["probabilities"]}, "logits, hidden_states, mask"),
    "hidden states of nothing": ({"outputs": ["hidden_states"]}, "need layers"),
    "layers for nothing": ({"outputs": ["logits"], "parameters": {"layers": "1"}}, "no output"),
    "a mask of pooled ones": ({"outputs": ["mask"], "parameters": {"layers": "1"}}, "mask"),
    "no such input": ({"texts": {"texts": ["a"]}}, "text, text_pair"),
    "a pair of nothing": ({"texts": {"text_pair": ["a"]}}, "text is missing"),
    "too few pairs": ({"texts": {"text": ["a", "b"], "text_pair": ["a"]}}, "as many pairs"),
    "too many": ({"texts": {"text": ["a"] * 129}}, "1 to 128"),
    "none": ({"texts": {"text": []}}, "1 to 128"),
    "no such model": ({"model": "another"}, "no such model"),
    "classes": ({"outputs": ["logits"], "output_options": {"class_count": 2}}, "classification"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_told_as_the_protocol_tells_them(triton: Triton, kind: str, case: str) -> None:
    call, told = WRONG[case]
    error = triton.infer(kind, texts("a"), **call)
    assert told in error["error"]
    expected = ("StatusCode.INVALID_ARGUMENT", "400")
    if case == "no such model":
        expected = ("StatusCode.NOT_FOUND", "404")
    assert error["status"] == expected[kind == "http"]


# ---- what no client of theirs would send ----


@pytest.fixture(scope="module")
def stub(server: ServerProcess) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(server.grpc) as channel:
        yield GRPCInferenceServiceStub(channel)


MALFORMED = {
    "shorter than its length": (request(b"\2\0\0\0a"), "inputs[0]"),
    "half a length": (request(b"\2\0"), "inputs[0]"),
    "more than the shape says": (request(packed(b"a", b"b")), "inputs[0]"),
    "fewer than the shape says": (request(packed(b"a"), shape=[2]), "inputs[0]"),
    "not UTF-8": (request(packed(b"\xff")), "inputs[0][0]"),
    "another type": (request(packed(b"a"), datatype="FP32"), "inputs[0].datatype"),
    "no shape": (request(packed(b"a"), shape=[]), "inputs[0].shape"),
    "a matrix": (request(packed(b"a", b"b"), shape=[1, 2]), "inputs[0].shape"),
    "less than nothing": (request(packed(b"a"), shape=[-1]), "inputs[0].shape"),
    "contents twice": (request(packed(b"a"), contents={"bytes_contents": [b"a"]}), "inputs[0].contents"),
    "raw contents of nothing": (request(packed(b"a"), packed(b"a")), "raw_input_contents"),
    "numbers": (request(contents={"fp32_contents": [1.0]}), "inputs[0]"),
    "shared memory": (
        request(packed(b"a"), parameters={"shared_memory_region": {"string_param": "x"}}),
        "inputs[0].parameters",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_tensors_are_refused_by_their_place(
    stub: GRPCInferenceServiceStub, triton: Triton, case: str
) -> None:
    asked, field = MALFORMED[case]
    asked.model_name = triton.model
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(asked, timeout=PATIENCE_SECONDS)
    assert refused.value.code() is Code.INVALID_ARGUMENT
    error = grpc_error(refused.value)
    assert isinstance(error, InvalidRequestError)
    assert error.field == field


def test_typed_contents_are_read_too(stub: GRPCInferenceServiceStub, triton: Triton) -> None:
    typed, raw = request(contents={"bytes_contents": [b"typed"]}), request(packed(b"typed"), shape=[1, 1])
    typed.model_name = raw.model_name = triton.model
    responses = [stub.ModelInfer(one, timeout=PATIENCE_SECONDS) for one in (typed, raw)]
    assert responses[0].raw_output_contents == responses[1].raw_output_contents


def test_a_text_that_fails_fails_the_request(faulty: FaultyServer) -> None:
    name = httpx.get(f"{faulty.running.url}/v1/describe").json()["name"]
    body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": ["fine", "fail v2"]}]}
    response = httpx.post(f"{faulty.running.url}/v2/models/{name}/infer", json=body, timeout=PATIENCE_SECONDS)
    assert response.status_code == 500
    assert response.json() == {"error": "the teacher failed; its log has more"}


def test_every_refusal_under_v2_is_a_text(http: httpx.Client) -> None:
    for method, path, body, status in (
        ("GET", "/v2/none", b"", 404),
        ("PUT", "/v2/health/live", b"", 405),
        ("POST", "/v2/models/m/infer", b"{", 400),
        ("POST", "/v2/models/m/infer", bytes(9 * 2**20), 413),
    ):
        response = http.request(method, path, content=body)
        assert response.status_code == status
        assert isinstance(response.json()["error"], str)


BODIES: dict[str, tuple[bytes, str | None]] = {
    "not JSON": (b'{"inp', None),
    "no inputs": (b"{}", None),
    "an unknown name": (b'{"inputs": [], "input": []}', None),
    "a head beyond the body": (b'{"inputs": []}', "99"),
    "a head that is no number": (b'{"inputs": []}', "-1"),
    "a surrogate": (b'{"inputs": [], "id": "\\ud800"}', None),
    "a huge shape": (
        b'{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [9223372036854775807], "data": []}]}',
        None,
    ),
    "a larger number": (
        b'{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [9223372036854775808], "data": []}]}',
        None,
    ),
    "more than follows": (
        b'{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], '
        b'"parameters": {"binary_data_size": 9}}]}',
        None,
    ),
    "both kinds of data": (
        b'{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"], '
        b'"parameters": {"binary_data_size": 0}}]}',
        None,
    ),
    "what follows nothing": (b'{"inputs": []} ', "14"),
}


@pytest.mark.parametrize("case", BODIES)
def test_malformed_bodies_are_refused(triton: Triton, http: httpx.Client, case: str) -> None:
    body, head = BODIES[case]
    headers = {"inference-header-content-length": head} if head else {}
    response = http.post(f"/v2/models/{triton.model}/infer", content=body, headers=headers)
    assert response.status_code == 400, response.text
    assert response.json()["error"]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"parameters": {"layers": [1, 2]}}, ('layers as "0,2"', "field parameters.layers)")),
        (
            {"inputs": [{"name": "text", "datatype": "FP32", "shape": [1], "data": [1.5]}]},
            ("texts are BYTES", "inputs[0].data[0]"),
        ),
    ],
)
def test_a_value_of_another_kind_is_told_once(
    triton: Triton, http: httpx.Client, changed: dict[str, Any], told: tuple[str, ...]
) -> None:
    """In one word of ours, not in pydantic's about each kind that it might have been."""
    text = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}
    response = http.post(f"/v2/models/{triton.model}/infer", json={"inputs": [text]} | changed)
    assert response.status_code == 400
    assert all(word in response.json()["error"] for word in told), response.text


def test_who_is_not_there_is_named(stub: GRPCInferenceServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelMetadata(pb.ModelMetadataRequest(name="another"), timeout=PATIENCE_SECONDS)
    assert isinstance(grpc_error(refused.value), NotFoundError)
    assert stub.ServerLive(pb.ServerLiveRequest()).live
