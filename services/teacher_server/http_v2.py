"""The Open Inference Protocol over HTTP, under /v2, with its binary tensor data extension.

The body is JSON; with the header Inference-Header-Content-Length so many bytes of it are, and what follows
are the inputs that say `binary_data_size`, one after another. Outputs come likewise where they are wanted
so: by an output's parameter `binary_data`, or for all by the request's `binary_data_output`.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Header, Path, Request
from fastapi.responses import Response
from pydantic import ValidationError

from teacher_api.errors import InvalidRequestError, NotReadyError
from teacher_api.open_inference import inference_pb2 as pb
from teacher_server.failures import of_the_table
from teacher_server.http_bodies import LOOP_BYTES, as_invalid_request
from teacher_server.http_v2_bodies import (
    BINARY,
    HEAD_BYTES,
    REFUSALS,
    InferBody,
    InputBody,
    ModelKind,
    Parameters,
    ServerKind,
    TensorKind,
    infer_documented,
)
from teacher_server.open_inference import OpenInference
from teacher_server.open_inference.writing import NUMPY

Head = Annotated[int | None, Header(alias=HEAD_BYTES, ge=0, description="bytes of the body that are JSON")]


def make_router(served: OpenInference) -> APIRouter:
    """The protocol's paths. A model's name may have slashes; of two decorators the lower one's path is tried
    first."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"], responses=REFUSALS)
    # That no other name or version is known, OpenAPI and /docs say; who asks all the same is told 404.
    Name = Annotated[str, Path(json_schema_extra={"enum": [served.name]})]
    Version = Annotated[str, Path(json_schema_extra={"enum": [served.version]})]

    @router.get("/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/health/ready")
    async def ready() -> dict[str, bool]:
        if not served.ready:
            raise NotReadyError("the server is not ready")
        return {"ready": True}

    @router.get("")
    async def server() -> ServerKind:
        told = served.server_metadata()
        return ServerKind(name=told.name, version=told.version, extensions=list(told.extensions))

    @router.get("/models/{name:path}/versions/{version}/ready")
    async def version_ready(name: Name, version: Version) -> dict[str, str | bool]:
        served.model_metadata(name, version)  # there is such a model
        if not served.ready:
            raise NotReadyError("the model is not ready")
        return {"name": name, "ready": True}

    @router.get("/models/{name:path}/ready")
    async def model_ready(name: Name) -> dict[str, str | bool]:
        return await version_ready(name, "")

    @router.post("/models/{name:path}/versions/{version}/infer", **infer_documented())
    async def version_infer(request: Request, name: Name, version: Version, head: Head = None) -> Response:
        body, follows = _read(await request.body(), head)
        binary = _binary(body)
        with of_the_table():
            response = await served.infer(_request(body, follows, name, version), None)
        return await _answered(response, binary)

    @router.post("/models/{name:path}/infer", **infer_documented())
    async def model_infer(request: Request, name: Name, head: Head = None) -> Response:
        return await version_infer(request, name, "", head)

    @router.get("/models/{name:path}/versions/{version}")
    async def version(name: Name, version: Version) -> ModelKind:
        told = served.model_metadata(name, version)
        return ModelKind(
            name=told.name,
            versions=list(told.versions),
            platform=told.platform,
            inputs=_tensors(told.inputs),
            outputs=_tensors(told.outputs),
        )

    @router.get("/models/{name:path}")
    async def model(name: Name) -> ModelKind:
        return await version(name, "")

    return router


# ---- what is asked ----


def _read(body: bytes, head: int | None) -> tuple[InferBody, bytes]:
    """The JSON, and what follows it."""
    size = len(body) if head is None else head
    if size > len(body):
        raise InvalidRequestError("more than the body", field=HEAD_BYTES, value=size, limit=len(body))
    try:
        return InferBody.model_validate_json(body[:size]), body[size:]
    except ValidationError as error:
        raise as_invalid_request(error.errors(), skipped=0) from None


def _request(body: InferBody, follows: bytes, name: str, version: str) -> pb.ModelInferRequest:
    raw = _raw(body.inputs, follows)
    try:
        return pb.ModelInferRequest(
            model_name=name,
            model_version=version,
            id=body.id,
            parameters=_parameters(body.parameters),
            inputs=[
                pb.ModelInferRequest.InferInputTensor(
                    name=one.name,
                    datatype=one.datatype,
                    shape=one.shape,
                    parameters=_parameters(one.parameters),
                )
                for one in body.inputs
            ],
            outputs=[
                pb.ModelInferRequest.InferRequestedOutputTensor(
                    name=one.name, parameters=_parameters(one.parameters)
                )
                for one in body.outputs
            ],
            raw_input_contents=raw,
        )
    except UnicodeEncodeError:
        raise InvalidRequestError("a lone surrogate is not Unicode text") from None


def _parameters(given: Parameters) -> dict[str, pb.InferParameter]:
    fields = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    typed: dict[str, dict[str, Any]] = {name: {fields[type(value)]: value} for name, value in given.items()}
    return {name: pb.InferParameter(**value) for name, value in typed.items()}


def _raw(inputs: Sequence[InputBody], follows: bytes) -> list[bytes]:
    """Each input's bytes: out of what follows the JSON, or out of its own texts."""
    raw, at = [], 0
    for number, tensor in enumerate(inputs):
        where = f"inputs[{number}]"
        size = tensor.parameters.pop("binary_data_size", None)
        if (size is None) == (tensor.data is None):
            raise InvalidRequestError("give data or binary_data_size, and not both", field=where)
        if tensor.data is not None:
            raw.append(_packed(tensor.data))
            continue
        if not isinstance(size, int) or not 0 <= size <= len(follows) - at:
            where += ".parameters.binary_data_size"
            raise InvalidRequestError(
                "more than follows the JSON", field=where, value=size, limit=len(follows) - at
            )
        raw.append(follows[at : at + size])
        at += size
    if at != len(follows):
        raise InvalidRequestError("bytes follow that no input has", field="inputs", value=len(follows) - at)
    return raw


def _packed(data: Sequence[str | Sequence[str]]) -> bytes:
    """Texts, each after its length; their nesting says no more than the shape."""
    flat = [text for one in data for text in ([one] if isinstance(one, str) else one)]
    return b"".join(len(text).to_bytes(4, "little") + text for text in map(str.encode, flat))


def _binary(body: InferBody) -> Callable[[str], bool]:
    """Whether an output, by its name, is wanted as bytes."""
    default = body.parameters.pop("binary_data_output", False)
    chosen = {one.name: one.parameters.pop("binary_data", default) for one in body.outputs}
    if not all(isinstance(value, bool) for value in (default, *chosen.values())):
        raise InvalidRequestError("binary_data is true or false", field="parameters")
    return lambda name: bool(chosen.get(name, default))


# ---- what is answered ----


async def _answered(response: pb.ModelInferResponse, binary: Callable[[str], bool]) -> Response:
    pairs = list(zip(response.outputs, response.raw_output_contents, strict=True))
    tail = [raw for output, raw in pairs if binary(output.name)]

    def write() -> bytes:
        outputs = [_output(output, raw, binary=binary(output.name)) for output, raw in pairs]
        named = {"id": response.id} if response.id else {}
        named |= {"model_name": response.model_name, "model_version": response.model_version}
        parameters = {name: one.int64_param for name, one in response.parameters.items()}
        return json.dumps(named | {"parameters": parameters, "outputs": outputs}).encode()

    size = sum(len(raw) for output, raw in pairs if not binary(output.name))
    head = write() if size < LOOP_BYTES else await asyncio.to_thread(write)
    if not tail:
        return Response(head, media_type="application/json")
    headers = {HEAD_BYTES: str(len(head))}
    return Response(b"".join([head, *tail]), media_type=BINARY, headers=headers)


def _output(output: pb.ModelInferResponse.InferOutputTensor, raw: bytes, *, binary: bool) -> dict[str, Any]:
    described = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
    if binary:
        return described | {"parameters": {"binary_data_size": len(raw)}}
    return described | {"data": np.frombuffer(raw, NUMPY[output.datatype]).tolist()}


def _tensors(described: Sequence[pb.ModelMetadataResponse.TensorMetadata]) -> list[TensorKind]:
    return [TensorKind(name=one.name, datatype=one.datatype, shape=list(one.shape)) for one in described]
