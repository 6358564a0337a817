"""Who a teacher is, which words it knows, and what a question is: digests.

An answer belongs to one teacher (its weights, configuration, tokenizer, label order, dtype and
maximum length) and one question. All digests are SHA-256 over length-prefixed parts, so that no two
different lists of parts can give the same bytes.
"""

import hashlib
from collections.abc import Iterable, Mapping

from teacher_api.messages import Instance, Want


def digest(parts: Iterable[bytes | memoryview]) -> bytes:
    """SHA-256 over parts, each behind its length as 8 little-endian bytes: 32 bytes."""
    state = hashlib.sha256()
    _feed(state, parts)
    return state.digest()


def _feed(state: "hashlib._Hash", parts: Iterable[bytes | memoryview]) -> None:
    for part in parts:
        size = part.nbytes if isinstance(part, memoryview) else len(part)
        state.update(size.to_bytes(8, "little"))
        state.update(part)


def fingerprint(parts: Iterable[bytes | memoryview]) -> str:
    """A teacher's name in keys and ledgers: 64 hexadecimal digits."""
    return digest(parts).hex()


class ContentKeys:
    """Keys of questions to one teacher about one set of outputs.

    The text is not normalised: what differs in one code point is another question.
    """

    def __init__(self, teacher: str, max_length: int, want: Want) -> None:
        self._head = hashlib.sha256()  # what all keys begin with
        head = (b"content-key-1", teacher.encode(), str(max_length).encode(), *_want_parts(want))
        _feed(self._head, head)

    def of(self, instance: Instance) -> bytes:
        """32 bytes that name this question."""
        state = self._head.copy()
        _feed(state, _instance_parts(instance))
        return state.digest()


def vocabulary_hash(vocabulary: Mapping[str, int]) -> str:
    """Digest over a vocabulary's (id, token) items in the order of their ids: 64 hexadecimal digits."""
    items = sorted((index, token) for token, index in vocabulary.items())
    return fingerprint(part for index, token in items for part in (str(index).encode(), token.encode()))


def _want_parts(want: Want) -> tuple[bytes, ...]:
    layers, attentions = (",".join(map(str, numbers)) for numbers in (want.layers, want.attentions))
    parts = (str(want.logits).encode(), layers.encode(), want.pooling.encode(), want.hidden_dtype.encode())
    # Named, so that it cannot be taken for an instance's part; without any, keys are as they always were.
    return (*parts, b"attentions", attentions.encode()) if attentions else parts


def _instance_parts(instance: Instance) -> tuple[bytes, ...]:
    if instance.token_ids is not None:
        ids, types = instance.token_ids, instance.type_ids
        return (b"tokens", ",".join(map(str, ids)).encode(), ",".join(map(str, types)).encode())
    # A lone surrogate cannot travel (protobuf refuses it), but it can be hashed without an error.
    text = instance.text.encode("utf-8", "surrogatepass")
    if instance.text_pair is None:
        return (b"text", text)
    return (b"pair", text, instance.text_pair.encode("utf-8", "surrogatepass"))
