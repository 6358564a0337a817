"""One answer's outputs as bytes that prove what they are: what a cache and a trainer's disk keep.

    magic (4) | content key (32) | CRC-32 of the rest (4, little-endian) | protobuf Outputs

A reader names the key it looks for. Anything else than an intact value of exactly that key, be it
truncated, altered, misplaced or foreign, reads as None: a miss, never a wrong answer, never an error.
"""

import zlib
from collections.abc import Sequence

import numpy as np
from google.protobuf.message import DecodeError

from teacher_api.messages import Outputs, outputs_from_proto, outputs_to_proto
from teacher_api.tensors import TensorError
from teacher_api.v1 import teacher_pb2 as pb

_MAGIC = b"DKD1"
_HEAD = 40
_FLOATS = np.dtype("<f4")


def seal(key: bytes, outputs: Outputs) -> bytes:
    """Outputs under their 32-byte content key."""
    body = outputs_to_proto(outputs).SerializeToString()
    return _MAGIC + key + _checksum(body) + body


def unseal(key: bytes, value: bytes | None) -> Outputs | None:
    """The outputs, or None if the value is absent or not an intact answer to exactly this question."""
    return unseal_many((key,), (value,))[0]


def unseal_many(keys: Sequence[bytes], values: Sequence[bytes | None]) -> list[Outputs | None]:
    """As `unseal`, in the order of the keys. Logits alone are read by what the value before had in common
    with them: all bytes but the numbers."""
    found: list[Outputs | None] = []
    prefix, size = b"", -1
    for key, value in zip(keys, values, strict=True):
        body = _proven(key, value)
        if body is None:
            found.append(None)
        elif len(body) == size and body.startswith(prefix):
            found.append(Outputs(np.frombuffer(body, _FLOATS, offset=len(prefix))))
        else:
            outputs = _decoded(body)
            found.append(outputs)
            prefix, size = _layout(body, outputs)
    return found


def _proven(key: bytes, value: bytes | None) -> bytes | None:
    """The protobuf message of an intact value of this key."""
    if value is None or len(value) < _HEAD:
        return None
    body = value[_HEAD:]
    return body if value.startswith(_MAGIC + key + _checksum(body)) else None


def _decoded(body: bytes) -> Outputs | None:
    try:
        return outputs_from_proto(pb.Outputs.FromString(body))
    except (DecodeError, TensorError):
        return None


def _layout(body: bytes, outputs: Outputs | None) -> tuple[bytes, int]:
    """What stands before the numbers, and the size of all, if this is what `seal` writes of logits alone.
    Other bytes behind the same prefix are then other logits, and no other message."""
    logits = None if outputs is None else outputs.logits
    if outputs is None or logits is None or not logits.size or logits.dtype != _FLOATS:
        return b"", -1
    canonical = outputs_to_proto(Outputs(logits)).SerializeToString()
    return (body[: -logits.nbytes], len(body)) if body == canonical else (b"", -1)


def _checksum(body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(4, "little")
