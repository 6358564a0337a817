"""An inference request as a question to the pipeline: whatever is not as it should be is named."""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from teacher_api.errors import InvalidRequestError
from teacher_api.messages import Description, HiddenDType, Instance, Pooling, Want
from teacher_api.open_inference import inference_pb2 as pb
from teacher_server.admission import Question
from teacher_server.auth import CALLER, OPERATION

Tensor = pb.ModelInferRequest.InferInputTensor

INPUTS = ("text", "text_pair")
OUTPUTS = ("logits", "hidden_states", "mask")
PARAMETERS = ("layers", "pooling", "dtype", "timeout")
POOLINGS: dict[str, Pooling] = {"cls": "cls", "mean": "mean", "none": "none"}
DTYPES: dict[str, HiddenDType] = {"FP32": "float32", "FP16": "float16"}
LAYERS = re.compile(r"[0-9]{1,4}(, ?[0-9]{1,4}){0,999}")
LENGTH_BYTES = 4


def question_of(
    request: pb.ModelInferRequest, seconds: float | None, teacher: Description
) -> tuple[Question, tuple[str, ...]]:
    """What is asked, and the names of the outputs that are wanted, in their order.

    Raises:
        InvalidRequestError: names the first fault.
    """
    parameters = _parameters(request.parameters)
    want = _want(parameters, [output.name for output in request.outputs])
    for number, output in enumerate(request.outputs):
        _check_known(sorted(output.parameters), (), f"outputs[{number}].parameters")
    question = Question(
        instances=_instances(request, teacher),
        want=want,
        deadline=time.monotonic() + min(float("inf") if seconds is None else seconds, _timeout(parameters)),
        caller=CALLER.get(),
        operation=OPERATION.get(),
    )
    return question, tuple(output.name for output in request.outputs) or _all(want)


# ---- inputs ----


def _instances(request: pb.ModelInferRequest, teacher: Description) -> tuple[Instance, ...]:
    raw, inputs = request.raw_input_contents, request.inputs
    if raw and len(raw) != len(inputs):
        raise InvalidRequestError(
            "as many raw contents as inputs, or none",
            field="raw_input_contents",
            value=len(raw),
            limit=len(inputs),
        )
    texts: dict[str, list[str]] = {}
    for number, tensor in enumerate(inputs):
        where = f"inputs[{number}]"
        _check_known([tensor.name], [name for name in INPUTS if name not in texts], f"{where}.name")
        _check_known(sorted(tensor.parameters), (), f"{where}.parameters")
        texts[tensor.name] = _texts(tensor, raw[number] if raw else None, teacher, where)
    if "text" not in texts:
        raise InvalidRequestError("the input text is missing", field="inputs")
    firsts, seconds = texts["text"], texts.get("text_pair")
    if seconds is None:
        return tuple(map(Instance, firsts))
    if len(seconds) != len(firsts):
        raise InvalidRequestError(
            "as many pairs as texts", field="inputs", value=len(seconds), limit=len(firsts)
        )
    return tuple(map(Instance, firsts, seconds))


def _texts(tensor: Tensor, raw: bytes | None, teacher: Description, where: str) -> list[str]:
    count = _count(tensor, teacher, where)
    if raw is None:
        elements: Sequence[bytes] = tensor.contents.bytes_contents
    elif tensor.HasField("contents"):
        raise InvalidRequestError("contents or raw contents, not both", field=f"{where}.contents")
    else:
        elements = _split(raw, count, where)
    if len(elements) != count:
        raise InvalidRequestError(
            "as many elements as the shape says", field=where, value=len(elements), limit=count
        )
    return [_text(element, f"{where}[{number}]") for number, element in enumerate(elements)]


def _count(tensor: Tensor, teacher: Description, where: str) -> int:
    if tensor.datatype != "BYTES":
        raise InvalidRequestError("texts are BYTES", field=f"{where}.datatype", value=tensor.datatype)
    if len(tensor.shape) not in (1, 2) or tensor.shape[1:] not in ([], [1]):
        shown = list(tensor.shape[:8])
        raise InvalidRequestError("texts have the shape [n] or [n, 1]", field=f"{where}.shape", value=shown)
    if not 1 <= tensor.shape[0] <= teacher.max_instances:
        limit = f"1 to {teacher.max_instances}"
        raise InvalidRequestError(
            "wrong number of texts", field=f"{where}.shape", value=tensor.shape[0], limit=limit
        )
    return tensor.shape[0]


def _split(raw: bytes, count: int, where: str) -> list[bytes]:
    """Elements, each after its length."""
    elements: list[bytes] = []
    at = 0
    while at + LENGTH_BYTES <= len(raw) and len(elements) < count:
        start = at + LENGTH_BYTES
        at = start + int.from_bytes(raw[at:start], "little")
        elements.append(raw[start:at])
    if at != len(raw):
        raise InvalidRequestError(
            "not as many texts as the shape says, each after its length",
            field=where,
            value=f"{len(raw)} bytes",
            limit=count,
        )
    return elements


def _text(element: bytes, where: str) -> str:
    try:
        return element.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequestError("not UTF-8", field=where, value=f"byte {error.start}") from None


# ---- parameters ----


def _parameters(given: Mapping[str, pb.InferParameter]) -> dict[str, Any]:
    _check_known(sorted(given), PARAMETERS, "parameters")
    chosen = {name: one.WhichOneof("parameter_choice") for name, one in given.items()}
    return {name: getattr(given[name], kind) for name, kind in chosen.items() if kind}


def _want(parameters: Mapping[str, Any], names: Sequence[str]) -> Want:
    for number, name in enumerate(names):
        _check_known([name], [one for one in OUTPUTS if one not in names[:number]], f"outputs[{number}].name")
    layers = _layers(parameters.get("layers", ""))
    want = Want(
        logits=not names or "logits" in names,
        layers=layers,
        pooling=_chosen(POOLINGS, parameters, "pooling", "cls"),
        hidden_dtype=_chosen(DTYPES, parameters, "dtype", "FP32"),
    )
    hidden = {"hidden_states", "mask"} & set(names)
    if not layers and (hidden or {"pooling", "dtype"} & parameters.keys()):
        raise InvalidRequestError("hidden states need layers, as 0,2,4", field="parameters.layers")
    if layers and names and not hidden:
        raise InvalidRequestError("layers are named, but no output of them is", field="outputs")
    if "mask" in hidden and want.pooling != "none":
        raise InvalidRequestError("only hidden states that are not pooled have a mask", field="outputs")
    return want


def _all(want: Want) -> tuple[str, ...]:
    return OUTPUTS[: 1 + bool(want.layers) + bool(want.layers and want.pooling == "none")]


def _layers(value: object) -> tuple[int, ...]:
    text = "" if isinstance(value, bool) else str(value)
    if value == "" or LAYERS.fullmatch(text):
        return tuple(map(int, text.split(","))) if text else ()
    raise InvalidRequestError(
        "name layers by their numbers, as 0,2,4", field="parameters.layers", value=value
    )


def _chosen(known: Mapping[str, Any], parameters: Mapping[str, Any], name: str, default: str) -> Any:
    value = parameters.get(name, default)
    if value not in known:
        _refuse(value, known, f"parameters.{name}")
    return known[value]


def _timeout(parameters: Mapping[str, Any]) -> float:
    """Seconds; 0 microseconds are no limit."""
    value = parameters.get("timeout", 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidRequestError("give a number of microseconds", field="parameters.timeout", value=value)
    return value / 1e6 or float("inf")


def _check_known(names: Sequence[str], known: Sequence[str], where: str) -> None:
    for name in names:
        if name not in known:
            _refuse(name, known, where)


def _refuse(value: object, known: Any, where: str) -> None:
    raise InvalidRequestError(
        "unknown, or given twice", field=where, value=value, limit=", ".join(known) or "none"
    )
