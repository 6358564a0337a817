"""The tensor codec: what goes in comes out; anything else is a TensorError, never another array."""

import math

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from teacher_api.tensors import TensorError, decode, encode
from teacher_api.v1 import teacher_pb2 as pb

DTYPES = st.sampled_from([np.float32, np.float16, np.uint8]).map(np.dtype)
ARRAYS = DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0)))


def test_a_literal_tensor():
    tensor = encode(np.array([[1.0, -2.0]], np.float32))
    assert tensor == pb.Tensor(
        dtype=pb.DATA_TYPE_FLOAT32, shape=[1, 2], data=bytes.fromhex("0000803f000000c0")
    )


@given(ARRAYS)
def test_round_trip(array):
    decoded = decode(pb.Tensor.FromString(encode(array).SerializeToString()), rank=array.ndim)
    assert (decoded.dtype, decoded.shape) == (array.dtype, array.shape)
    assert decoded.tobytes() == array.tobytes()  # bit for bit: NaNs and negative zeros too


@given(ARRAYS)
def test_byte_order_and_memory_layout_do_not_matter(array):
    swapped = array.astype(array.dtype.newbyteorder(">"))
    assert encode(swapped) == encode(array)
    assert encode(np.array(array, order="F")) == encode(array)


@pytest.mark.parametrize("dtype", ["int64", "float64", "bool", "U4", "O"])
def test_other_dtypes_do_not_travel(dtype):
    with pytest.raises(TensorError, match="cannot travel"):
        encode(np.zeros(2, dtype))


def test_the_decoded_array_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        decode(encode(np.zeros(2, np.float32)))[0] = 1


@given(ARRAYS, st.integers(-64, 64).filter(bool))
def test_a_wrong_number_of_bytes_is_refused(array, change):
    tensor = encode(array)
    tensor.data = tensor.data + bytes(change) if change > 0 else tensor.data[:change]
    assume(len(tensor.data) != array.nbytes)  # there was something to cut
    with pytest.raises(TensorError, match="needs"):
        decode(tensor)


@given(ARRAYS, st.integers(-(2**31), 2**31 - 1))
def test_another_dtype_is_refused(array, code):
    tensor = encode(array)
    assume(code != tensor.dtype)
    known = code in (pb.DATA_TYPE_FLOAT32, pb.DATA_TYPE_FLOAT16, pb.DATA_TYPE_UINT8)
    assume(array.size or not known)  # nothing is nothing in any dtype
    tensor.dtype = code
    with pytest.raises(TensorError):
        decode(tensor)


@given(ARRAYS, st.lists(st.integers(0, 2**32 - 1), max_size=6))
def test_another_shape_is_refused_unless_it_holds_as_many(array, shape):
    tensor = encode(array)
    del tensor.shape[:]
    tensor.shape.extend(shape)
    try:
        decoded = decode(tensor)
    except TensorError:
        return
    assert decoded.shape == tuple(shape)
    assert math.prod(shape) == array.size


@given(ARRAYS, st.integers(0, 8))
def test_another_rank_than_expected_is_refused(array, rank):
    assume(rank != array.ndim)
    with pytest.raises(TensorError, match="rank"):
        decode(encode(array), rank=rank)


def test_a_huge_shape_is_refused_by_its_size():
    huge = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[2**32 - 1] * 4)
    with pytest.raises(TensorError, match="limit"):
        decode(huge)
    with pytest.raises(TensorError, match="limit is 7"):
        decode(encode(np.zeros(2, np.float32)), max_bytes=7)


@pytest.mark.parametrize("shape", [[0, 2**32 - 1, 2**32 - 1, 2**32 - 1], [1] * 65])
def test_a_shape_beyond_numpys_own_limits_is_refused(shape):
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=shape, data=bytes(math.prod(shape)))
    with pytest.raises(TensorError, match="no array"):
        decode(tensor)


@given(ARRAYS, st.data())
def test_mutated_wire_bytes_give_an_error_or_the_array_that_they_say(array, data):
    wire = bytearray(encode(array).SerializeToString())
    assume(wire)
    for _ in range(data.draw(st.integers(1, 3))):
        wire[data.draw(st.integers(0, len(wire) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        tensor = pb.Tensor.FromString(bytes(wire))
        decoded = decode(tensor)
    except (DecodeError, TensorError):
        return
    assert (decoded.shape, decoded.tobytes()) == (tuple(tensor.shape), tensor.data)
