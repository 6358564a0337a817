"""Whatever may arrive in the Open Inference Protocol: strategies for hypothesis; what an answer must be."""

import json
import math
import struct
from collections.abc import Sequence
from typing import Any

import grpc
import httpx
from fuzzing import any_json, nearly
from hypothesis import strategies as st
from processes import ServerProcess

from teacher_api.open_inference import inference_pb2 as pb

Tensor = pb.ModelInferRequest.InferInputTensor
Wanted = pb.ModelInferRequest.InferRequestedOutputTensor

BYTES_OF = {"FP32": 4, "FP16": 2, "UINT8": 1}
HEAD_BYTES = "inference-header-content-length"
PATIENCE_SECONDS = 20


def packed(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def request(*raw: bytes, **fields: Any) -> pb.ModelInferRequest:
    """For one text, changed."""
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1]} | fields
    return pb.ModelInferRequest(model_name="tiny-model0", inputs=[tensor], raw_input_contents=raw)


class V2Grpc:
    """ModelInfer with whatever bytes."""

    def __init__(self, server: ServerProcess, model: str) -> None:
        self.channel, self.model = grpc.insecure_channel(server.grpc), model
        self._infer = self.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

    def send(self, asked: pb.ModelInferRequest) -> grpc.StatusCode:
        """The code; an answer is looked at."""
        asked.model_name = self.model
        return self.send_bytes(asked.SerializeToString())

    def send_bytes(self, data: bytes) -> grpc.StatusCode:
        try:
            answer = pb.ModelInferResponse.FromString(self._infer(data, timeout=PATIENCE_SECONDS))
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)
            return error.code()
        shapes = [(one.name, one.datatype, list(one.shape)) for one in answer.outputs]
        check_sizes(shapes, [len(raw) for raw in answer.raw_output_contents])
        return grpc.StatusCode.OK


class V2Http:
    """The same over HTTP: some JSON, and what follows it."""

    def __init__(self, server: ServerProcess, model: str) -> None:
        self.client = httpx.Client(base_url=server.url, timeout=PATIENCE_SECONDS)
        self._path = f"/v2/models/{model}/infer"

    def send(self, body: Any, follows: bytes = b"") -> int:
        """The status; an answer is looked at, and an error is a text."""
        head = json.dumps(body).encode()
        response = self.client.post(self._path, content=head + follows, headers={HEAD_BYTES: str(len(head))})
        if response.status_code == 200:
            check_answer(response)
        else:
            assert isinstance(response.json()["error"], str), response.text
        return response.status_code


def check_answer(response: httpx.Response) -> None:
    """Each output has the numbers that its shape promises, in the JSON or after it."""
    size = int(response.headers.get(HEAD_BYTES, len(response.content)))
    told, at = json.loads(response.content[:size]), size
    shapes, lengths = [], []
    for one in told["outputs"]:
        shapes.append((one["name"], one["datatype"], one["shape"]))
        binary = one.get("parameters", {}).get("binary_data_size")
        lengths.append(BYTES_OF[one["datatype"]] * len(one["data"]) if binary is None else binary)
        at += binary or 0
    assert at == len(response.content)
    check_sizes(shapes, lengths)


def check_sizes(outputs: Sequence[tuple[str, str, Sequence[int]]], lengths: Sequence[int]) -> None:
    """All have as many rows as the first, and bytes for all their numbers."""
    assert len({name for name, _, _ in outputs}) == len(outputs) > 0
    assert len({shape[0] for _, _, shape in outputs}) == 1
    assert [BYTES_OF[kind] * math.prod(shape) for _, kind, shape in outputs] == list(lengths)


# ---- gRPC ----

names = st.sampled_from(["text", "text_pair", "logits", "hidden_states", "mask", "layers", "timeout", ""])
values = st.one_of(
    st.builds(pb.InferParameter, string_param=st.text(max_size=4) | st.sampled_from(["0,1", "cls", "FP16"])),
    st.builds(pb.InferParameter, int64_param=st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3)),
    st.builds(pb.InferParameter, double_param=st.floats()),
    st.builds(pb.InferParameter, bool_param=st.booleans()),
    st.just(pb.InferParameter()),
)
parameters = st.dictionaries(names | st.sampled_from(["pooling", "dtype"]), values, max_size=2)
contents = st.builds(
    pb.InferTensorContents,
    bytes_contents=st.lists(st.binary(max_size=4), max_size=2),
    int_contents=st.lists(st.integers(0, 3), max_size=1),
)
inputs = st.builds(
    Tensor,
    name=names,
    datatype=st.sampled_from(["BYTES", "BYTES", "FP32"]),
    shape=st.lists(st.integers(0, 3) | st.integers(-(2**63), 2**63 - 1), max_size=3),
    parameters=st.just({}) | parameters,
    contents=st.none() | contents,
)
requests = st.builds(
    pb.ModelInferRequest,
    parameters=parameters,
    inputs=st.lists(inputs, max_size=2),
    outputs=st.lists(st.builds(Wanted, name=names), max_size=2),
    raw_input_contents=st.lists(st.binary(max_size=8) | st.just(packed(b"a")), max_size=2),
)


@st.composite
def nearly_sound(draw: st.DrawFn) -> pb.ModelInferRequest:
    """A request as a client writes it, then as many faults as are drawn: most often none, or one."""
    count = draw(st.integers(1, 3))
    kinds = ["text", "text_pair"][: draw(st.integers(1, 2))]
    columns = [draw(st.lists(st.text(max_size=6), min_size=count, max_size=count)) for _ in kinds]
    elements = [[text.encode() for text in column] for column in columns]
    asked = pb.ModelInferRequest(
        inputs=[Tensor(name=kind, datatype="BYTES", shape=[count]) for kind in kinds],
        outputs=[Wanted(name=name) for name in draw(st.sampled_from(OUTPUTS))],
        raw_input_contents=[packed(*column) for column in elements],
    )
    for name, value in draw(st.sampled_from(PARAMETERS)).items():
        asked.parameters[name].string_param = value
    for fault in draw(st.lists(st.sampled_from(FAULTS), max_size=2)):
        fault(asked, draw)
    return asked


OUTPUTS: list[list[str]] = [[], ["logits"], ["hidden_states"], ["mask", "logits"]]
PARAMETERS: list[dict[str, str]] = [
    {},
    {"layers": "0,2"},
    {"layers": "1", "pooling": "none", "dtype": "FP16"},
    {"layers": "3", "pooling": "mean"},
]


def _another_shape(asked: pb.ModelInferRequest, draw: st.DrawFn) -> None:
    asked.inputs[0].shape[:] = draw(st.lists(st.integers(-1, 4), max_size=3))


def _cut(asked: pb.ModelInferRequest, draw: st.DrawFn) -> None:
    if asked.raw_input_contents:
        raw = asked.raw_input_contents[-1]
        asked.raw_input_contents[-1] = raw[: draw(st.integers(0, len(raw)))] + draw(st.binary(max_size=2))


def _another_length(asked: pb.ModelInferRequest, draw: st.DrawFn) -> None:
    if asked.raw_input_contents:
        length = struct.pack("<I", draw(st.integers(0, 2**32 - 1)))
        asked.raw_input_contents[0] = length + asked.raw_input_contents[0][4:]


def _another_number_of_raw_contents(asked: pb.ModelInferRequest, draw: st.DrawFn) -> None:
    asked.raw_input_contents[:] = draw(st.lists(st.just(packed(b"a")), max_size=3))


def _typed_beside_raw(asked: pb.ModelInferRequest, draw: st.DrawFn) -> None:
    asked.inputs[-1].contents.bytes_contents.extend(draw(st.lists(st.binary(max_size=3), max_size=3)))


FAULTS = (_another_shape, _cut, _another_length, _another_number_of_raw_contents, _typed_beside_raw)

_SOUND = request(packed(b"a")).SerializeToString()
v2_mutations = st.builds(
    lambda cut, at, put: _SOUND[:at] + put + _SOUND[at + 1 : len(_SOUND) - cut],
    st.integers(0, len(_SOUND)),
    st.integers(0, len(_SOUND)),
    st.binary(max_size=6),
)

# ---- HTTP ----

json_values = st.sampled_from(["0,1", "cls", "none", "FP16", 1, True, 8])
json_parameters = nearly(
    **dict.fromkeys(["layers", "pooling", "dtype", "binary_data_size", "binary_data_output"], json_values)
)
v2_bodies = nearly(
    id=st.text(max_size=4),
    parameters=json_parameters,
    outputs=st.lists(nearly(name=names, parameters=json_parameters), max_size=2),
) | st.builds(
    lambda tensors, other: {"inputs": tensors} | other,
    st.lists(
        st.fixed_dictionaries(
            {"name": names, "datatype": st.just("BYTES"), "shape": st.lists(st.integers(0, 2), max_size=2)},
            optional={"data": st.lists(st.text(max_size=3), max_size=2), "parameters": json_parameters},
        ),
        max_size=2,
    ),
    nearly(parameters=json_parameters),
)
any_v2_body = v2_bodies | any_json
follows = st.binary(max_size=8) | st.just(packed(b"abcd"))


@st.composite
def nearly_sound_body(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A JSON body and what follows it, out of a request of gRPC: its faults are the same."""
    asked = draw(nearly_sound())
    tail, tensors = b"", []
    for number, one in enumerate(asked.inputs):
        tensor = {"name": one.name, "datatype": one.datatype, "shape": list(one.shape)}
        raw = asked.raw_input_contents[number] if number < len(asked.raw_input_contents) else None
        if raw is not None:
            tensor["parameters"] = {"binary_data_size": len(raw) + draw(st.sampled_from([0, 0, 0, 1]))}
            tail += raw
        if raw is None or one.contents.bytes_contents:
            tensor["data"] = [text.decode(errors="replace") for text in one.contents.bytes_contents]
        tensors.append(tensor)
    parameters: dict[str, Any] = {name: value.string_param for name, value in asked.parameters.items()}
    parameters |= draw(st.sampled_from([{}, {"binary_data_output": True}]))
    outputs = [
        {"name": one.name, "parameters": draw(st.sampled_from([{}, {"binary_data": True}]))}
        for one in asked.outputs
    ]
    return {"inputs": tensors, "parameters": parameters, "outputs": outputs}, tail
