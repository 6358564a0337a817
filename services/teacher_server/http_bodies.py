"""The contract's messages as JSON: what the HTTP face reads and writes (its OpenAPI comes from here)."""

import base64
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from teacher_api import tensors
from teacher_api.errors import InvalidRequestError, TeacherError
from teacher_api.messages import Answer, HiddenDType, Instance, Outputs, Pooling, Want
from teacher_api.tensors import Array
from teacher_server.admission import Question
from teacher_server.auth import CALLER, OPERATION

Encoding = Literal["list", "base64"]
DAY_MS = 86_400_000
LOOP_BYTES = 64 * 1024  # of tensors that are written on the event loop; more goes to a thread

# What follows bounds the work on a hostile body: of millions of faults only the first is looked for.
# The lists end at the most that the settings allow; a server's own limits are checked on admission.
Item = TypeVar("Item")
AtMost4096 = Annotated[list[Item], Field(max_length=4096, fail_fast=True)]
AtMost8192 = Annotated[list[Item], Field(max_length=8192, fail_fast=True)]
Id = Annotated[int, Field(ge=0, lt=2**32)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _few_names(cls, body: Any) -> Any:
        if isinstance(body, dict) and len(body) > len(cls.model_fields):
            raise ValueError(f"too many names; known are {', '.join(cls.model_fields)}")
        return body


class InstanceBody(Body):
    """A text, a pair of texts, or token ids of the teacher's own vocabulary."""

    text: str | None = None
    text_pair: str | None = None
    token_ids: AtMost8192[Id] | None = None
    type_ids: AtMost8192[Id] = []

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.text is None) == (self.token_ids is None):
            raise ValueError("give text or token_ids, and not both")
        if self.text is None and self.text_pair is not None:
            raise ValueError("text_pair needs text")
        return self

    def instance(self) -> Instance:
        if self.token_ids is not None:
            return Instance(token_ids=tuple(self.token_ids), type_ids=tuple(self.type_ids))
        return Instance(self.text or "", self.text_pair)


class WantBody(Body):
    """Which outputs are wanted: logits, the hidden states of layers (0 = embeddings), and the attention
    probabilities of layers (1 = the first)."""

    logits: bool = True
    layers: AtMost4096[int] = []
    pooling: Pooling = "cls"
    hidden_dtype: HiddenDType = "float32"
    attentions: AtMost4096[int] = []

    def want(self) -> Want:
        return Want(self.logits, tuple(self.layers), self.pooling, self.hidden_dtype, tuple(self.attentions))


class PredictRequest(Body):
    instances: AtMost4096[InstanceBody] = Field(json_schema_extra={"minItems": 1})
    want: WantBody = WantBody()
    fingerprint: str = Field("", description="refuse unless this is the teacher's; empty accepts any")
    vocabulary_hash: str = Field("", description="required with token ids")
    encoding: Encoding = Field("list", description="tensors as nested lists, or as base64 of their bytes")
    timeout_ms: int | None = Field(None, ge=0, le=DAY_MS, description="how long the caller will wait")

    def question(self) -> Question:
        seconds = float("inf") if self.timeout_ms is None else self.timeout_ms / 1000
        return Question(
            instances=tuple(body.instance() for body in self.instances),
            want=self.want.want(),
            fingerprint=self.fingerprint,
            vocabulary_hash=self.vocabulary_hash,
            deadline=time.monotonic() + seconds,
            caller=CALLER.get(),
            operation=OPERATION.get(),
        )


class TensorBody(BaseModel):
    dtype: str
    shape: list[int]
    data: str = Field(description="base64 of little-endian bytes in C order")


Tensor = list[float] | list[list[float]] | list[list[list[float]]] | list[int] | TensorBody


class OutputsBody(BaseModel):
    logits: Tensor | None = None
    hidden: dict[str, Tensor] = {}
    mask: Tensor | None = None
    attentions: dict[str, Tensor] = {}


class ErrorBody(BaseModel):
    """See Error in teacher.proto."""

    code: str
    message: str
    field: str
    value: str
    limit: str
    retry_after_ms: int


class AnswerBody(BaseModel):
    outputs: OutputsBody | None
    cached: bool
    charged: int
    error: ErrorBody | None


class PredictResponse(BaseModel):
    fingerprint: str
    answers: list[AnswerBody]


class Refusal(BaseModel):
    error: ErrorBody


def as_invalid_request(faults: Sequence[Any], *, skipped: int) -> InvalidRequestError:
    """The first of pydantic's errors; so many parts of its place are not the body's."""
    first = faults[0]
    path = () if first["type"] == "json_invalid" else first["loc"][skipped:]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    message = str(first["msg"]).removeprefix("Value error, ")
    shown = "" if isinstance(first.get("input"), dict | list) else first.get("input", "")
    return InvalidRequestError(message, field=where.removeprefix("."), value=shown)


def refuse_coding(coding: bytes) -> None:
    """Raises InvalidRequestError: the body is compressed; no limit on what it would become is kept here."""
    if coding.lower() != b"identity":
        raise InvalidRequestError(
            "request bodies are not decompressed: send them as they are",
            field="content-encoding",
            value=coding.decode("latin-1"),
            limit="identity",
        )


def answer_to_json(answer: Answer, encoding: Encoding) -> dict[str, Any]:
    """As AnswerBody; float32 in nested lists reads back as exactly the same number."""
    write = _as_list if encoding == "list" else _as_base64
    return {
        "outputs": None if answer.outputs is None else _outputs(answer.outputs, write),
        "cached": answer.cached,
        "charged": answer.charged,
        "error": None if answer.error is None else error_to_json(answer.error),
    }


def error_to_json(error: TeacherError) -> dict[str, Any]:
    """As ErrorBody."""
    named = {name: getattr(error, name) for name in ("code", "message", "field", "value", "limit")}
    return {name: legible(text) for name, text in named.items()} | {"retry_after_ms": error.retry_after_ms}


def legible(text: str) -> str:
    """What an error quotes may hold lone surrogates, which no one could read."""
    return text.encode("utf-8", "backslashreplace").decode()


def bytes_of(answers: Sequence[Answer]) -> int:
    """Bytes of all tensors."""
    return sum(answer.outputs.nbytes for answer in answers if answer.outputs is not None)


def _outputs(outputs: Outputs, write: Any) -> dict[str, Any]:
    return {
        "logits": None if outputs.logits is None else write(outputs.logits),
        "hidden": {str(layer): write(values) for layer, values in outputs.hidden.items()},
        "mask": None if outputs.mask is None else write(outputs.mask),
        "attentions": {str(layer): write(values) for layer, values in outputs.attentions.items()},
    }


def _as_list(array: Array) -> Any:
    return array.tolist()


def _as_base64(array: Array) -> dict[str, Any]:
    data = base64.b64encode(tensors.encode(array).data).decode()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}
