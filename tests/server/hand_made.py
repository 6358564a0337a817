"""Fifty values that no server has written, each under a key that is asked for."""

import base64
import gzip
import json
import pickle
import zlib
from collections.abc import Sequence

import numpy as np

from teacher_api import tensors
from teacher_api.v1 import teacher_pb2 as pb

F16, F32, U8 = pb.DATA_TYPE_FLOAT16, pb.DATA_TYPE_FLOAT32, pb.DATA_TYPE_UINT8
THREE = tensors.encode(np.array([7, 8, 9], np.float32))  # what logits look like, and nobody's


def hand_made(key: bytes, value: bytes) -> list[bytes]:
    """Everything that could stand at `key`, where `value` should."""
    return [*_torn(key, value), *(_sealed(key, body) for body in [*_bodies(), *_outputs()])]


def _sealed(key: bytes, body: bytes, magic: bytes = b"DKD1", order: str = "little") -> bytes:
    """An intact envelope, whatever is in it."""
    return magic + key + zlib.crc32(body).to_bytes(4, order) + body  # type: ignore[arg-type]


def _torn(key: bytes, value: bytes) -> list[bytes]:
    body, other = value[40:], bytes(reversed(key))
    return [
        b"",
        b"nil",
        b"0",
        value[:3],
        value[:39],
        value[:40],
        value[:-1],
        value[1:],
        value + b"\0",
        value + value,
        value.hex().encode(),
        base64.b64encode(value),
        gzip.compress(value),
        json.dumps({"logits": [7, 8, 9]}).encode(),
        pickle.dumps(print),
        bytes(len(value)),
        _sealed(key, body, magic=b"DKD2"),
        _sealed(key, body, magic=b"dkd1"),
        _sealed(other, body),
        _sealed(key, body, order="big"),
    ]


def _bodies() -> list[bytes]:
    """No Outputs at all, or not only."""
    question = pb.PredictRequest(instances=[pb.Instance(text="a text")], fingerprint="f" * 64)
    return [
        b"",
        b"\0",
        b"\xff" * 64,
        bytes(2**20),
        b"<html>",
        question.SerializeToString(),
        _logits(THREE)[:-1],
        _logits(THREE) + b"\x0a",
    ]


def _outputs() -> list[bytes]:
    """Well-formed messages that hold no answer to a question for three logits."""
    state = pb.HiddenState(layer=1, values=THREE)
    return [
        *map(_logits, _tensors()),
        pb.Outputs(hidden=[state]).SerializeToString(),
        pb.Outputs(logits=THREE, hidden=[state]).SerializeToString(),
        pb.Outputs(logits=THREE, hidden=[pb.HiddenState(layer=1)]).SerializeToString(),
        pb.Outputs(logits=THREE, mask=THREE).SerializeToString(),
        pb.Outputs(mask=pb.Tensor(dtype=U8, shape=[3], data=bytes(3))).SerializeToString(),
    ]


def _tensors() -> list[pb.Tensor]:
    return [
        pb.Tensor(),
        _tensor(0, [3], 12),
        _tensor(99, [3], 12),
        _tensor(F32, [], 4),
        _tensor(F32, [3], 11),
        _tensor(F32, [3], 13),
        _tensor(F32, [3], 0),
        _tensor(F32, [2**32 - 3], 12),
        _tensor(F32, [2**30, 3], 12),
        _tensor(F32, [2**16, 2**16, 2**16], 0),
        _tensor(F32, [1] * 65, 4),
        _tensor(F32, [1, 3], 12),
        _tensor(F32, [0], 0),
        _tensor(F32, [2], 8),
        _tensor(F32, [4], 16),
        _tensor(F16, [3], 6),
        _tensor(U8, [3], 3),
    ]


def _tensor(dtype: int, shape: Sequence[int], size: int) -> pb.Tensor:
    return pb.Tensor(dtype=dtype, shape=shape, data=bytes(size))  # type: ignore[arg-type]


def _logits(tensor: pb.Tensor) -> bytes:
    return pb.Outputs(logits=tensor).SerializeToString()
