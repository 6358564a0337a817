"""What may be asked: every fault of a question named by its field, value and limit."""

from dataclasses import dataclass

from teacher_api.errors import FingerprintMismatchError, InvalidRequestError
from teacher_api.messages import Description, Instance, Want

LOGITS_ONLY = Want()
OPEN = "open"  # the caller's name where no key is asked for


@dataclass(frozen=True, slots=True)
class Question:
    """What one request asks.

    Attributes:
        fingerprint: of the teacher that must answer; empty accepts any.
        vocabulary_hash: of the vocabulary of token ids.
        deadline: time.monotonic() after which the caller no longer waits.
        caller: name of the API key that asks; work is shared out, counted and charged by it.
        operation: the caller's name for what it is doing; within one, a text is charged once at most.
    """

    instances: tuple[Instance, ...]
    want: Want = LOGITS_ONLY
    fingerprint: str = ""
    vocabulary_hash: str = ""
    deadline: float = float("inf")
    caller: str = OPEN
    operation: str = ""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Most bytes of a request and of its answer."""

    request: int
    answer: int


def check(question: Question, teacher: Description) -> None:
    """Refuses what this teacher cannot answer.

    Raises:
        FingerprintMismatchError: another teacher is meant.
        InvalidRequestError: names the first fault.
    """
    if question.fingerprint not in ("", teacher.fingerprint):
        raise FingerprintMismatchError(
            "another teacher than the one pinned is served here; are all replicas started alike?",
            field="fingerprint",
            value=question.fingerprint,
            limit=teacher.fingerprint,
        )
    check_count(len(question.instances), teacher)
    _check_want(question.want, teacher)
    for number, instance in enumerate(question.instances):
        if instance.token_ids is None:
            _check_texts(instance, teacher, f"instances[{number}]")
        else:
            _check_tokens(instance, question.vocabulary_hash, teacher, f"instances[{number}]")


def check_count(count: int, teacher: Description) -> None:
    """Raises InvalidRequestError; a face may ask before it reads what could be millions of instances."""
    if not count:
        raise InvalidRequestError("ask at least one instance", field="instances", value=0, limit=1)
    if count > teacher.max_instances:
        raise InvalidRequestError(
            "too many instances", field="instances", value=count, limit=teacher.max_instances
        )


def _check_want(want: Want, teacher: Description) -> None:
    if not (want.logits or want.layers or want.attentions):
        raise InvalidRequestError("want logits, layers or attentions", field="want")
    if want.attentions and not teacher.attention_heads:
        raise InvalidRequestError("this teacher gives no attentions", field="want.attentions")
    _check_layers(want.layers, "want.layers", 0, teacher.layers)
    _check_layers(want.attentions, "want.attentions", 1, teacher.layers)


def _check_layers(layers: tuple[int, ...], field: str, first: int, last: int) -> None:
    for position, layer in enumerate(layers):
        where = f"{field}[{position}]"
        if not first <= layer <= last:
            raise InvalidRequestError("no such layer", field=where, value=layer, limit=f"{first} to {last}")
        if layer in layers[:position]:
            raise InvalidRequestError("the layer is named twice", field=where, value=layer)


def _check_texts(instance: Instance, teacher: Description, where: str) -> None:
    if instance.characters > teacher.max_characters:
        raise InvalidRequestError(
            "too many characters", field=where, value=instance.characters, limit=teacher.max_characters
        )
    for name, text in (("text", instance.text), ("text_pair", instance.text_pair or "")):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequestError(
                "a lone surrogate is not Unicode text",
                field=f"{where}.{name}",
                value=f"\\u{ord(text[error.start]):04x} at {error.start}",
            ) from None


def _check_tokens(instance: Instance, vocabulary_hash: str, teacher: Description, where: str) -> None:
    if vocabulary_hash != teacher.vocabulary_hash:
        raise InvalidRequestError(
            "token ids need the teacher's own vocabulary hash; else send text",
            field="vocabulary_hash",
            value=vocabulary_hash,
            limit=teacher.vocabulary_hash,
        )
    count, types = len(instance.token_ids or ()), len(instance.type_ids)
    if not 1 <= count <= teacher.max_length:
        raise InvalidRequestError(
            "wrong number of token ids",
            field=f"{where}.tokens.ids",
            value=count,
            limit=f"1 to {teacher.max_length}",
        )
    if types not in (0, count):
        raise InvalidRequestError(
            "as many type ids as token ids, or none",
            field=f"{where}.tokens.type_ids",
            value=types,
            limit=count,
        )
