"""The contract's messages as plain Python values, and their way to protobuf and back.

Both programs work with these; protobuf is met only where something leaves the process or a disk.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

from teacher_api import tensors
from teacher_api.errors import InvalidRequestError, TeacherError, error_from_proto, error_to_proto
from teacher_api.tensors import Array
from teacher_api.v1 import teacher_pb2 as pb

Pooling = Literal["cls", "mean", "none"]
HiddenDType = Literal["float32", "float16"]

_POOLINGS = {"cls": pb.POOLING_CLS, "mean": pb.POOLING_MEAN, "none": pb.POOLING_NONE}
_POOLING_NAMES: dict[int, Pooling] = {_POOLINGS[name]: name for name in get_args(Pooling)}
_HIDDEN_DTYPES = {"float32": pb.DATA_TYPE_FLOAT32, "float16": pb.DATA_TYPE_FLOAT16}
_HIDDEN_DTYPE_NAMES: dict[int, HiddenDType] = {_HIDDEN_DTYPES[name]: name for name in get_args(HiddenDType)}


@dataclass(frozen=True, slots=True)
class Instance:
    """One thing to classify: a text, a pair of texts, or token ids of the teacher's own vocabulary."""

    text: str = ""
    text_pair: str | None = None
    token_ids: tuple[int, ...] | None = None
    type_ids: tuple[int, ...] = ()

    @property
    def characters(self) -> int:
        """Unicode code points of all that is sent: what cloud APIs bill by."""
        return len(self.text) + len(self.text_pair or "")


@dataclass(frozen=True, slots=True)
class Want:
    """Which outputs are wanted: logits, the hidden states of `layers` (0 = embeddings), and the attention
    probabilities of `attentions` (1 = the first layer)."""

    logits: bool = True
    layers: tuple[int, ...] = ()
    pooling: Pooling = "cls"
    hidden_dtype: HiddenDType = "float32"
    attentions: tuple[int, ...] = ()


class Outputs(NamedTuple):
    """What the teacher computed for one instance.

    A tuple: one is made for every cached answer, and a frozen dataclass takes three times as long to make.

    Attributes:
        logits: float32 [classes], temperature 1; None if not wanted.
        hidden: layer -> [hidden], or [tokens, hidden] when not pooled.
        mask: uint8 [tokens] beside hidden states that are not pooled.
        attentions: layer -> [heads, tokens, tokens].
    """

    logits: Array | None = None
    hidden: Mapping[int, Array] = MappingProxyType({})
    mask: Array | None = None
    attentions: Mapping[int, Array] = MappingProxyType({})

    @property
    def arrays(self) -> list[Array]:
        """All that there are."""
        single = [array for array in (self.logits, self.mask) if array is not None]
        return [*single, *self.hidden.values(), *self.attentions.values()]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(array.nbytes for array in self.arrays)


@dataclass(frozen=True, slots=True)
class Answer:
    """Outputs or the error that took their place; whether the model ran; what was charged, in queries."""

    outputs: Outputs | None = None
    cached: bool = False
    charged: int = 0
    error: TeacherError | None = None


@dataclass(frozen=True)
class Description:
    """What a teacher is: see DescribeResponse in teacher.proto for each field and its unit."""

    name: str
    fingerprint: str
    labels: tuple[str, ...]
    vocabulary_hash: str
    max_length: int
    layers: int
    hidden_size: int
    intermediate_size: int
    parameters: int
    dtype: str
    poolings: tuple[Pooling, ...] = ("cls", "mean", "none")
    max_instances: int = 128
    max_characters: int = 100_000
    runtime: str = ""
    attention_heads: int = 0


@dataclass(frozen=True)
class Usage:
    """Counts of instances, and what was charged: see GetUsageResponse in teacher.proto."""

    asked: int = 0
    cached: int = 0
    joined: int = 0
    failed: int = 0
    charged: int = 0
    remaining: int | None = None
    key: str = ""
    period: str = ""
    queries: int = 0
    units: int = 0
    usd: str = ""
    remaining_units: int | None = None
    remaining_usd: str | None = None
    keys: tuple["Usage", ...] = ()

    def own(self) -> dict[str, Any]:
        """All but other keys' usage."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "keys"}


def most_bytes(want: Want, teacher: Description) -> int:
    """The most that the tensors of one answer can hold."""
    whole = bool(want.layers) and want.pooling == "none"
    numbers = len(want.layers) * (teacher.max_length if whole else 1) * teacher.hidden_size
    numbers += len(want.attentions) * teacher.attention_heads * teacher.max_length**2
    itemsize = 2 if want.hidden_dtype == "float16" else 4
    return 4 * len(teacher.labels) + numbers * itemsize + whole * teacher.max_length


def misfit(outputs: Outputs, want: Want, teacher: Description) -> str:
    """What is missing, too much, or of the wrong shape or dtype for this question; empty if nothing is."""
    logits = None if outputs.logits is None else (outputs.logits.shape, outputs.logits.dtype.name)
    if logits != (((len(teacher.labels),), "float32") if want.logits else None):
        return f"logits {logits}"
    if tuple(outputs.hidden) != want.layers:
        return f"layers {tuple(outputs.hidden)}"
    tokens = () if outputs.mask is None else outputs.mask.shape
    if (outputs.mask is not None) != bool(want.layers and want.pooling == "none"):
        return "a mask where none is due, or none where one is"
    for layer, values in outputs.hidden.items():
        if values.shape != (*tokens, teacher.hidden_size) or values.dtype != want.hidden_dtype:
            return f"layer {layer} of shape {values.shape} and dtype {values.dtype}"
    return _misfit_of_attentions(outputs, want, teacher)


def _misfit_of_attentions(outputs: Outputs, want: Want, teacher: Description) -> str:
    if tuple(outputs.attentions) != want.attentions:
        return f"attentions of layers {tuple(outputs.attentions)}"
    for layer, values in outputs.attentions.items():
        tokens = values.shape[-1] if outputs.mask is None else len(outputs.mask)
        if values.shape != (teacher.attention_heads, tokens, tokens) or values.dtype != want.hidden_dtype:
            return f"attentions of layer {layer} of shape {values.shape} and dtype {values.dtype}"
    return ""


def instance_to_proto(instance: Instance) -> pb.Instance:
    if instance.token_ids is not None:
        return pb.Instance(tokens=pb.TokenIds(ids=instance.token_ids, type_ids=instance.type_ids))
    return pb.Instance(text=instance.text, text_pair=instance.text_pair)


def instance_from_proto(proto: pb.Instance, where: str) -> Instance:
    """Raises InvalidRequestError, naming `where`, if both text and token ids are given."""
    if not proto.HasField("tokens"):
        return Instance(proto.text, proto.text_pair if proto.HasField("text_pair") else None)
    if proto.text or proto.HasField("text_pair"):
        raise InvalidRequestError("give text or token ids, not both", field=where)
    return Instance(token_ids=tuple(proto.tokens.ids), type_ids=tuple(proto.tokens.type_ids))


def want_to_proto(want: Want) -> pb.Want:
    return pb.Want(
        logits=want.logits,
        layers=want.layers,
        pooling=_POOLINGS[want.pooling],
        hidden_dtype=_HIDDEN_DTYPES[want.hidden_dtype],
        attentions=want.attentions,
    )


def want_from_proto(proto: pb.Want) -> Want:
    """Raises InvalidRequestError for a pooling or dtype that is unknown, or layers without pooling."""
    pooling = _POOLING_NAMES.get(proto.pooling)
    if pooling is None and (proto.layers or proto.pooling):
        raise InvalidRequestError(
            "layers need a pooling: cls, mean or none", field="want.pooling", value=proto.pooling
        )
    hidden_dtype = _HIDDEN_DTYPE_NAMES.get(proto.hidden_dtype or pb.DATA_TYPE_FLOAT32)
    if hidden_dtype is None:
        raise InvalidRequestError(
            "hidden states come as float32 or float16", field="want.hidden_dtype", value=proto.hidden_dtype
        )
    return Want(proto.logits, tuple(proto.layers), pooling or "cls", hidden_dtype, tuple(proto.attentions))


def outputs_to_proto(outputs: Outputs, into: pb.Outputs | None = None) -> pb.Outputs:
    """Into an empty message that is part of another, or a new one: what a constructor is given is copied,
    hidden states and all."""
    proto = pb.Outputs() if into is None else into
    if outputs.logits is not None:
        tensors.encode(outputs.logits, proto.logits)
    for layer, array in outputs.hidden.items():
        tensors.encode(array, proto.hidden.add(layer=layer).values)
    if outputs.mask is not None:
        tensors.encode(outputs.mask, proto.mask)
    for layer, array in outputs.attentions.items():
        tensors.encode(array, proto.attentions.add(layer=layer).values)
    return proto


def outputs_from_proto(proto: pb.Outputs) -> Outputs:
    """Raises TensorError if any tensor is not what it says."""
    decode = tensors.decode
    return Outputs(
        logits=decode(proto.logits, rank=1) if proto.HasField("logits") else None,
        hidden={state.layer: decode(state.values) for state in proto.hidden},
        mask=decode(proto.mask, rank=1) if proto.HasField("mask") else None,
        attentions={state.layer: decode(state.values, rank=3) for state in proto.attentions},
    )


def answer_to_proto(answer: Answer, into: pb.Answer | None = None) -> pb.Answer:
    """As `outputs_to_proto`."""
    proto = pb.Answer() if into is None else into
    proto.cached, proto.charged = answer.cached, answer.charged
    if answer.outputs is not None:
        proto.outputs.SetInParent()
        outputs_to_proto(answer.outputs, proto.outputs)
    if answer.error is not None:
        proto.error.CopyFrom(error_to_proto(answer.error))
    return proto


def answer_from_proto(proto: pb.Answer) -> Answer:
    """Raises TensorError if any tensor is not what it says."""
    return Answer(
        outputs=outputs_from_proto(proto.outputs) if proto.HasField("outputs") else None,
        cached=proto.cached,
        charged=proto.charged,
        error=error_from_proto(proto.error) if proto.HasField("error") else None,
    )


def request_to_proto(instances: Sequence[Instance], want: Want, fingerprint: str = "") -> pb.PredictRequest:
    return pb.PredictRequest(
        instances=map(instance_to_proto, instances), want=want_to_proto(want), fingerprint=fingerprint
    )


def description_to_proto(description: Description) -> pb.DescribeResponse:
    fields = {name: getattr(description, name) for name in description.__dataclass_fields__}
    return pb.DescribeResponse(**fields | {"poolings": [_POOLINGS[name] for name in description.poolings]})


def description_from_proto(proto: pb.DescribeResponse) -> Description:
    fields = {name: getattr(proto, name) for name in Description.__dataclass_fields__}
    known = tuple(_POOLING_NAMES[code] for code in proto.poolings if code in _POOLING_NAMES)
    return Description(**fields | {"labels": tuple(proto.labels), "poolings": known})


def usage_to_proto(usage: Usage) -> pb.GetUsageResponse:
    return pb.GetUsageResponse(**usage.own(), keys=map(usage_to_proto, usage.keys))


def usage_from_proto(proto: pb.GetUsageResponse) -> Usage:
    own = {name: getattr(proto, name) for name in Usage().own()}
    if not proto.HasField("remaining"):
        own["remaining"] = None
    if not proto.HasField("remaining_units"):
        own["remaining_units"] = None
    if not proto.HasField("remaining_usd"):
        own["remaining_usd"] = None
    return Usage(**own, keys=tuple(map(usage_from_proto, proto.keys)))
