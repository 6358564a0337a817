"""Which answers are enough for what is wanted, and what is taken of them."""

import numpy as np
import pytest

from student_trainer.teachers.wants import holds, part
from teacher_api.messages import Outputs, Want


@pytest.mark.parametrize(
    ("more", "less", "enough"),
    [
        (("none", "float32"), ("cls", "float32"), True),
        (("none", "float32"), ("mean", "float16"), True),
        (("none", "float16"), ("cls", "float16"), True),
        (("none", "float16"), ("mean", "float16"), False),  # a teacher halves the mean, not what it is of
        (("none", "float16"), ("cls", "float32"), False),
        (("cls", "float32"), ("mean", "float32"), False),
        (("cls", "float32"), ("none", "float32"), False),
    ],
)
def test_whole_states_have_the_pooled_ones(
    more: tuple[str, str], less: tuple[str, str], enough: bool
) -> None:
    wants = [
        Want(layers=layers, pooling=pooling, hidden_dtype=dtype)
        for layers, (pooling, dtype) in (((1, 2), more), ((2,), less))
    ]
    assert holds(*wants) == enough
    assert not holds(wants[1], wants[0])  # a layer less


def test_what_is_wanted_of_whole_states() -> None:
    whole = Outputs(
        None, {2: np.array([[1.0, 2.0], [3.0, 6.0], [9.0, 9.0]], np.float32)}, np.array([1, 1, 0], np.uint8)
    )
    for pooling, expected in (("cls", [1.0, 2.0]), ("mean", [2.0, 4.0])):
        found = part(whole, Want(False, (2,), pooling, "float16"))
        assert found.hidden[2].tolist() == expected
        assert (found.hidden[2].dtype, found.mask) == (np.float16, None)
    assert part(whole, Want(False, (2,), "none")).hidden[2].shape == (3, 2)
