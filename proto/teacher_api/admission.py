"""What a teacher refuses before it computes anything: the same over every transport."""

from collections.abc import Sequence

from teacher_api.errors import FingerprintMismatchError, InvalidRequestError
from teacher_api.messages import Description, Instance, Want


def check_request(
    instances: Sequence[Instance],
    want: Want,
    teacher: Description,
    fingerprint: str = "",
    vocabulary_hash: str = "",
) -> None:
    """Passes a request that the teacher can answer.

    Raises:
        FingerprintMismatchError: another teacher is pinned.
        InvalidRequestError: too many or no instances, one that is too long, token ids of a foreign
            vocabulary, nothing wanted, or a layer that is not there. Names the field, value and limit.
    """
    if fingerprint and fingerprint != teacher.fingerprint:
        raise FingerprintMismatchError(
            "this is another teacher than the one pinned",
            field="fingerprint",
            value=fingerprint,
            limit=teacher.fingerprint,
        )
    if not 1 <= len(instances) <= teacher.max_instances:
        raise InvalidRequestError(
            "give at least one instance and at most the limit",
            field="instances",
            value=len(instances),
            limit=teacher.max_instances,
        )
    _check_want(want, teacher)
    for row, instance in enumerate(instances):
        _check_instance(f"instances[{row}]", instance, teacher, vocabulary_hash)


def _check_want(want: Want, teacher: Description) -> None:
    if not want.logits and not want.layers:
        raise InvalidRequestError("nothing is wanted: ask for logits, layers or both", field="want")
    for layer in want.layers:
        if not 0 <= layer <= teacher.layers:
            raise InvalidRequestError(
                "there is no such layer", field="want.layers", value=layer, limit=teacher.layers
            )
    if len(set(want.layers)) < len(want.layers):
        raise InvalidRequestError("a layer is named twice", field="want.layers", value=want.layers)


def _check_instance(where: str, instance: Instance, teacher: Description, vocabulary_hash: str) -> None:
    if instance.characters > teacher.max_characters:
        raise InvalidRequestError(
            "the text has too many characters",
            field=f"{where}.text",
            value=instance.characters,
            limit=teacher.max_characters,
        )
    if instance.token_ids is not None and vocabulary_hash != teacher.vocabulary_hash:
        raise InvalidRequestError(
            "token ids need this teacher's vocabulary", field="vocabulary_hash", value=vocabulary_hash
        )
