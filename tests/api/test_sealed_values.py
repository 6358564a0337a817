"""Sealed values: anything but an intact value of exactly that key is a miss."""

import random

import numpy as np
import pytest
from contract_values import OUTPUTS, bits
from hypothesis import given
from hypothesis import strategies as st

from teacher_api.messages import Outputs
from teacher_api.sealed import seal, unseal, unseal_many

KEYS = st.binary(min_size=32, max_size=32)
LOGITS = st.lists(st.floats(width=32), min_size=3, max_size=3).map(
    lambda numbers: Outputs(np.array(numbers, np.float32))
)
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


@given(st.lists(st.tuples(KEYS, OUTPUTS | LOGITS), max_size=8))
def test_many_at_once_are_what_each_is_alone(asked):
    keys, outputs = [key for key, _ in asked], [outputs for _, outputs in asked]
    values = [seal(key, one) for key, one in asked]
    assert [bits(one) for one in unseal_many(keys, values)] == [bits(one) for one in outputs]


def test_among_many_of_one_layout_each_is_proven():
    keys = [bytes([number]) * 32 for number in range(8)]
    values = [seal(key, Outputs(np.full(3, key[0], np.float32))) for key in keys]
    values[2], values[4], values[6] = values[3], values[4][:-1], None
    found = unseal_many(keys, values)
    assert [None if one is None else one.logits.tolist() for one in found] == [
        None if number in (2, 4, 6) else [number] * 3 for number in range(8)
    ]


def test_a_message_that_goes_on_behind_the_logits_teaches_no_layout():
    """An unknown field whose content equals the logits' bytes: the next one's differs."""
    from teacher_api.sealed import _MAGIC, _checksum, outputs_to_proto

    logits = np.arange(3, dtype=np.float32)
    body = outputs_to_proto(Outputs(logits)).SerializeToString() + b"\xfa\x7f\x0c"
    bodies = [body + logits.tobytes(), body + (logits + 1).tobytes()]
    values = [_MAGIC + KEY + _checksum(one) + one for one in bodies]
    for outputs in unseal_many([KEY, KEY], values):
        assert outputs is not None and outputs.logits.tolist() == [0, 1, 2]


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


@pytest.mark.parametrize("stranger", [None, 7, "DKD1", [b""], ValueError("no")])
def test_among_many_what_is_no_value_at_all_is_a_miss(stranger):
    found = unseal_many([KEY, KEY, OTHER], [VALUE, stranger, VALUE])
    assert [bits(one) for one in found] == [bits(unseal(KEY, VALUE)), None, None]


@pytest.mark.parametrize("classes", [*range(1, 40), 127, 128, 1000, 5000, 16_384, 20_000])
def test_many_of_any_number_of_classes(classes):
    outputs = [Outputs(np.arange(classes, dtype=np.float32) + start) for start in range(3)]
    keys = [bytes([start]) * 32 for start in range(3)]
    values = [seal(key, one) for key, one in zip(keys, outputs, strict=True)]
    found = unseal_many(keys, values)
    assert [bits(one) for one in found] == [bits(one) for one in outputs]
    assert (found[0].logits.base is found[2].logits.base is not None) == (classes < 16_384)  # read at once
    altered = values[1][:-1] + bytes([values[1][-1] ^ 1])
    found = unseal_many(keys, [values[0], altered, values[2]])
    assert [bits(one) for one in found] == [bits(outputs[0]), None, bits(outputs[2])]


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
