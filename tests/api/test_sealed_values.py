"""Sealed values: anything but an intact value of exactly that key is a miss."""

import random

import numpy as np
import pytest
from contract_values import OUTPUTS, bits
from hypothesis import given
from hypothesis import strategies as st

from teacher_api.messages import Outputs
from teacher_api.sealed import seal, unseal

KEYS = st.binary(min_size=32, max_size=32)
KEY, OTHER = b"k" * 32, b"o" * 32
VALUE = seal(KEY, Outputs(np.arange(3, dtype=np.float32), {2: np.ones(8, np.float16)}))


@given(KEYS, OUTPUTS)
def test_round_trip(key, outputs):
    assert bits(unseal(key, seal(key, outputs))) == bits(outputs)


@given(KEYS, KEYS, OUTPUTS)
def test_under_another_key_it_is_a_miss(key, other, outputs):
    assert (unseal(other, seal(key, outputs)) is None) == (key != other)


def test_swapped_values_are_misses():
    swapped = {KEY: seal(OTHER, Outputs(np.zeros(3, np.float32))), OTHER: VALUE}
    assert [unseal(key, value) for key, value in swapped.items()] == [None, None]


def test_ten_thousand_mutated_values_are_misses():
    chance = random.Random(0)
    for _ in range(10_000):
        mutated = _mutated(VALUE, chance)
        assert mutated == VALUE or unseal(KEY, mutated) is None, mutated.hex()


def _mutated(value: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(value))
    return chance.choice(
        [
            value[:at],
            value[at:],
            value[:at] + bytes([value[at] ^ 1 << chance.randrange(8)]) + value[at + 1 :],
            value[:at] + chance.randbytes(chance.randrange(1, 9)) + value[at:],
            value[:at] + chance.randbytes(len(value) - at),
            value + value[:at],
            chance.randbytes(at),
        ]
    )


@pytest.mark.parametrize(
    "value", [None, b"", b"DKD1", VALUE[:40], b"\x80\x04K\x01.", b"nil", "∅".encode() * 20]
)
def test_foreign_values_are_misses(value):
    assert unseal(KEY, value) is None


def test_a_sound_checksum_over_a_wrong_tensor_is_a_miss():
    from teacher_api.sealed import _MAGIC, _checksum
    from teacher_api.v1 import teacher_pb2 as pb

    lies = pb.Outputs(logits=pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[3], data=b"1234"))
    for body in (lies.SerializeToString(), b"\xff\xff\xff"):
        assert unseal(KEY, _MAGIC + KEY + _checksum(body) + body) is None
