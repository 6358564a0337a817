"""One answer's outputs as bytes that prove what they are: what a cache and a trainer's disk keep.

    magic (4) | content key (32) | CRC-32 of the rest (4, little-endian) | protobuf Outputs

A reader names the key it looks for. Anything else than an intact value of exactly that key, be it
truncated, altered, misplaced or foreign, reads as None: a miss, never a wrong answer, never an error.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import repeat
from zlib import crc32

import numpy as np
from google.protobuf.message import DecodeError

from teacher_api.messages import Outputs, outputs_from_proto, outputs_to_proto
from teacher_api.tensors import Array, TensorError
from teacher_api.v1 import teacher_pb2 as pb

_MAGIC = b"DKD1"
_HEAD = 40
_FLOATS = np.dtype("<f4")
_MOST = 2**16  # bytes of logits that are read so
# Outputs of logits alone from the tuple of its fields, in half the time of its constructor.
_LOGITS_ONLY = partial(tuple.__new__, Outputs)
_NOTHING_ELSE = [*map(repeat, Outputs()[1:])]


def seal(key: bytes, outputs: Outputs) -> bytes:
    """Outputs under their 32-byte content key."""
    body = outputs_to_proto(outputs).SerializeToString()
    return _MAGIC + key + _checksum(body) + body


def unseal(key: bytes, value: object) -> Outputs | None:
    """The outputs, or None if the value is absent or not an intact answer to exactly this question."""
    if not isinstance(value, bytes):
        return None
    body = value[_HEAD:]
    if not value.startswith(_MAGIC + key + _checksum(body)):
        return None
    try:
        return outputs_from_proto(pb.Outputs.FromString(body))
    except (DecodeError, TensorError):
        return None


def unseal_many(keys: Sequence[bytes], values: Sequence[object]) -> list[Outputs | None]:
    """As `unseal`, in the order of the keys. Of logits alone, all of one size, the arrays are rows of one."""
    there = [value for value in values if isinstance(value, bytes)]
    rows = _rows(keys, there) if len(there) == len(keys) else None
    if rows is None:
        return [*map(unseal, keys, values)]
    return [*map(_LOGITS_ONLY, zip(rows, *_NOTHING_ELSE, strict=False))]


def _rows(keys: Sequence[bytes], values: Sequence[bytes]) -> Array | None:
    """[values, classes] if all are intact, of one size, and what `seal` makes of logits alone."""
    sizes = set(map(len, values))
    layout = _layout(*sizes) if len(sizes) == 1 else None
    if layout is None:
        return None
    lead, dtype = layout
    rows = np.frombuffer(b"".join(values), dtype)
    intact = (
        rows["head"].tobytes() == _MAGIC + _MAGIC.join(keys)
        and rows["checksum"].tolist() == [crc32(value[_HEAD:]) for value in values]
        and rows["lead"].tobytes() == lead * len(values)
    )
    return rows["logits"].copy() if intact else None


@lru_cache(maxsize=64)
def _layout(size: int) -> tuple[bytes, np.dtype[np.void]] | None:
    """What stands before the numbers in the message, and all parts, of a sealed value of logits alone that is
    of this size. Any numbers behind these bytes make such a message, and no other one."""
    size -= _HEAD
    for count in range(max(1, size // 4 - 4), size // 4) if size <= _MOST else ():
        message = outputs_to_proto(Outputs(np.zeros(count, _FLOATS))).SerializeToString()
        if len(message) == size:
            lead = message[: -4 * count]
            parts = [
                ("head", "V36"),
                ("checksum", "<u4"),
                ("lead", f"V{len(lead)}"),
                ("logits", _FLOATS, (count,)),
            ]
            return lead, np.dtype(parts)
    return None


def _checksum(body: bytes) -> bytes:
    return crc32(body).to_bytes(4, "little")
