"""The Open Inference Protocol's messages as JSON, and what OpenAPI says of them.

An infer body is read by hand, since binary tensors may follow its JSON; so it is described by hand as well.
"""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from teacher_server.http_bodies import AtMost4096, Body
from teacher_server.open_inference.reading import DTYPES, INPUTS, LAYERS, OUTPUTS, POOLINGS

HEAD_BYTES = "inference-header-content-length"
BINARY = "application/octet-stream"


def _says(remedy: str) -> WrapValidator:
    """Of a value that may be one of several kinds: one word of ours for pydantic's about each of them."""

    def checked(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
        try:
            return check(value)
        except ValidationError:
            raise ValueError(remedy) from None

    return WrapValidator(checked)


Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Parameter = Annotated[
    bool | Int64 | float | str, _says('give true, false, a number or a text, layers as "0,2"')
]
Text = Annotated[str | AtMost4096[str], _says("texts are BYTES: give a string, or a list of at most 4096")]
Parameters = Annotated[dict[str, Parameter], Field(max_length=64)]


def _known(**names: dict[str, Any]) -> Any:
    """For OpenAPI only: which parameters there are. What is sent is checked where it is understood."""
    return Field(
        default_factory=dict, json_schema_extra={"properties": dict(names), "additionalProperties": False}
    )


def _one_of(names: Iterable[str]) -> Any:
    return Field(json_schema_extra={"enum": list(names)})


class InputBody(Body):
    """Texts: in `data`, or in so many bytes after the JSON, each text after its length."""

    name: str = _one_of(INPUTS)
    datatype: str = _one_of(["BYTES"])
    shape: AtMost4096[Int64] = Field(description="[n] or [n, 1]")
    parameters: Parameters = _known(binary_data_size={"type": "integer", "minimum": 0})
    data: AtMost4096[Text] | None = None


class OutputBody(Body):
    name: str = _one_of(OUTPUTS)
    parameters: Parameters = _known(binary_data={"type": "boolean"})


class InferBody(Body):
    id: str = ""
    parameters: Parameters = _known(
        layers={
            "type": ["string", "integer"],
            "pattern": f"^({LAYERS.pattern})?$",
            "description": "as 0,2,4",
        },
        pooling={"enum": list(POOLINGS)},
        dtype={"enum": list(DTYPES)},
        timeout={"type": "integer", "minimum": 0, "description": "microseconds; 0: none"},
        binary_data_output={"type": "boolean"},
    )
    inputs: AtMost4096[InputBody]
    outputs: AtMost4096[OutputBody] = Field(default_factory=list)


class OutputTensor(BaseModel):
    """With `data`, or with the parameter `binary_data_size` where its bytes follow the JSON."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float] = []
    parameters: dict[str, int] = {}


class Inferred(BaseModel):
    """`parameters` are how many of the texts were charged, and how many came out of the cache."""

    id: str = ""
    model_name: str
    model_version: str
    parameters: dict[str, int]
    outputs: list[OutputTensor]


class TensorKind(BaseModel):
    name: str
    datatype: str
    shape: list[int]


class ModelKind(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorKind]
    outputs: list[TensorKind]


class ServerKind(BaseModel):
    name: str
    version: str
    extensions: list[str]


class Failure(BaseModel):
    """The protocol's errors are texts."""

    error: str


REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Failure, "description": "The request is refused"},
    "5XX": {"model": Failure, "description": "It cannot be answered"},
}


def status_of(status: int) -> int:
    """The protocol's status for one of the error table's: it knows no 422."""
    return 400 if status == 422 else status


def infer_documented() -> dict[str, Any]:
    """What a decorator of an infer route takes to describe both kinds of bodies and of answers."""
    schema = InferBody.model_json_schema()
    definitions = schema.pop("$defs")

    def whole(part: Any) -> Any:
        """Without references, which would be sought in the OpenAPI document, not here."""
        if isinstance(part, list):
            return [whole(one) for one in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return whole(definitions[part["$ref"].rsplit("/", 1)[1]])
        return {name: whole(value) for name, value in part.items()}

    binary = {"schema": {"type": "string", "format": "binary"}}
    body = {"application/json": {"schema": whole(schema)}, BINARY: binary}
    return {
        "response_model": None,
        "responses": {200: {"model": Inferred, "content": {BINARY: binary}}},
        "openapi_extra": {"requestBody": {"required": True, "content": body}},
    }
