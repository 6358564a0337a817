"""One answer's outputs as bytes that prove what they are: what a cache and a trainer's disk keep.

    magic (4) | content key (32) | CRC-32 of the rest (4, little-endian) | protobuf Outputs

A reader names the key it looks for. Anything else than an intact value of exactly that key, be it
truncated, altered, misplaced or foreign, reads as None: a miss, never a wrong answer, never an error.
"""

import zlib

from google.protobuf.message import DecodeError

from teacher_api.messages import Outputs, outputs_from_proto, outputs_to_proto
from teacher_api.tensors import TensorError
from teacher_api.v1 import teacher_pb2 as pb

_MAGIC = b"DKD1"
_HEAD = 40


def seal(key: bytes, outputs: Outputs) -> bytes:
    """Outputs under their 32-byte content key."""
    body = outputs_to_proto(outputs).SerializeToString()
    return _MAGIC + key + _checksum(body) + body


def unseal(key: bytes, value: bytes | None) -> Outputs | None:
    """The outputs, or None if the value is absent or not an intact answer to exactly this question."""
    if value is None or len(value) < _HEAD:
        return None
    body = value[_HEAD:]
    if value[:_HEAD] != _MAGIC + key + _checksum(body):
        return None
    try:
        return outputs_from_proto(pb.Outputs.FromString(body))
    except (DecodeError, TensorError):
        return None


def _checksum(body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(4, "little")
