"""Arrays as raw little-endian bytes with their dtype and shape; nothing is ever unpickled.

A decoder refuses any tensor whose bytes, dtype, rank or size are not exactly what it says or what
the reader expects, so that a corrupt answer can never be mistaken for another one.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teacher_api.v1 import teacher_pb2 as pb

Array = NDArray[Any]

MAX_BYTES = 64 * 2**20  # of one tensor: 64 MiB, well above 512 tokens x 4096 floats

_DTYPES: dict[int, np.dtype[Any]] = {
    pb.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    pb.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    pb.DATA_TYPE_UINT8: np.dtype("u1"),
}
_CODES: dict[np.dtype[Any], Any] = {dtype: code for code, dtype in _DTYPES.items()}


class TensorError(ValueError):
    """A tensor's bytes, dtype, shape or size do not agree with one another or with what was expected."""


def encode(array: Array, into: pb.Tensor | None = None) -> pb.Tensor:
    """Writes an array of float32, float16 or uint8, of any shape, in C order; into an empty message that is
    part of another, or a new one.

    Raises:
        TensorError: the array has another dtype.
    """
    if array.dtype not in _CODES:  # another byte order, or one that cannot travel
        array = array.astype(array.dtype.newbyteorder("<"))
    code = _CODES.get(array.dtype)
    if code is None:
        raise TensorError(f"dtype {array.dtype} cannot travel; use one of {_names()}")
    tensor = pb.Tensor() if into is None else into
    tensor.dtype = code
    tensor.shape.extend(array.shape)
    tensor.data = array.tobytes()
    return tensor


def decode(tensor: pb.Tensor, *, rank: int | None = None, max_bytes: int = MAX_BYTES) -> Array:
    """Reads a tensor as a read-only array over its bytes: no copy is made.

    Args:
        tensor: what came over the wire or out of a cache.
        rank: the number of axes that it must have; None accepts any.
        max_bytes: the most that it may hold.

    Raises:
        TensorError: unknown dtype, another rank, too large, not exactly product(shape) elements, or a
            shape that no array can have.
    """
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise TensorError(f"dtype code {tensor.dtype} is unknown; expected one of {_names()}")
    shape = tuple(tensor.shape)
    if rank is not None and len(shape) != rank:
        raise TensorError(f"rank {len(shape)} where {rank} is expected (shape {shape})")
    size = math.prod(shape) * dtype.itemsize  # Python integers: a huge shape cannot overflow
    if size > max_bytes:
        raise TensorError(f"shape {shape} needs {size} bytes; the limit is {max_bytes}")
    if size != len(data := tensor.data):
        raise TensorError(f"shape {shape} of {dtype.name} needs {size} bytes, not {len(data)}")
    try:
        return np.frombuffer(data, dtype=dtype).reshape(shape)
    except ValueError as error:  # numpy's own limits: 64 axes; the other axes of an empty array
        raise TensorError(f"no array has shape {shape}: {error}") from error


def _names() -> str:
    return ", ".join(sorted(dtype.name for dtype in _CODES))
