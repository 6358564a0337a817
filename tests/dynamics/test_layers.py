"""Which layers are matched, and the map between widths."""

import pytest
import torch

from student_trainer.errors import UserError
from student_trainer.layers import Projection, pairs


@pytest.mark.parametrize(
    ("scheme", "teacher", "student", "expected"),
    [
        ("skip", 12, 6, [(2, 1), (4, 2), (6, 3), (8, 4), (10, 5)]),  # eq. 12, BERT-PKD
        ("last", 12, 6, [(7, 1), (8, 2), (9, 3), (10, 4), (11, 5)]),
        ("skip", 12, 3, [(4, 1), (8, 2)]),
        ("last", 12, 3, [(10, 1), (11, 2)]),
        ("skip", 6, 3, [(2, 1), (4, 2)]),
        ("skip", 12, 5, [(2, 1), (5, 2), (7, 3), (10, 4)]),  # 2.4, 4.8, 7.2, 9.6
        ("skip", 5, 2, [(3, 1)]),  # 2.5, half rounded up
        ("skip", 3, 3, [(1, 1), (2, 2)]),
        ("last", 3, 3, [(1, 1), (2, 2)]),
        ("2:1,4:2", 6, 3, [(2, 1), (4, 2)]),
        (" 12 : 1 , 0:0", 12, 1, [(12, 1), (0, 0)]),
        (["2:1", "2:2"], 6, 3, [(2, 1), (2, 2)]),
    ],
)
def test_matched_layers(
    scheme: str | list[str], teacher: int, student: int, expected: list[tuple[int, int]]
) -> None:
    assert pairs(scheme, teacher, student) == expected


@pytest.mark.parametrize(
    ("scheme", "teacher", "student", "message"),
    [
        ("skip", 12, 1, "'skip' leaves out the student's last layer, and it has no other; name a pair"),
        ("last", 12, 1, "'last' leaves out the student's last layer"),
        ("skip", 3, 6, "'skip' needs a teacher at least as deep as the student, not 3 layers for 6; name"),
        ("13:1", 12, 6, "'13:1' names layer 13 of the teacher; it has 0 to 12"),
        ("2:7", 12, 6, "'2:7' names layer 7 of the student; it has 0 to 6"),
        ("2:1,4:1", 12, 6, "student layer 1 is named twice; match it with one teacher layer"),
        ("middle", 12, 6, "'middle' is no pair; give skip, last, uniform, or teacher:student"),
        ("", 12, 6, "'' is no pair"),
        ("2:1,", 12, 6, "'' is no pair"),
        ("2:-1", 12, 6, "'2:-1' is no pair"),
        ("2:1:3", 12, 6, "'2:1:3' is no pair"),
        ("²:1", 12, 6, "'²:1' is no pair"),
        ("9" * 5000 + ":1", 12, 6, "is no pair"),
        ([], 12, 6, "no pair is named"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(
    scheme: str | list[str], teacher: int, student: int, message: str
) -> None:
    with pytest.raises(UserError) as error:
        pairs(scheme, teacher, student)
    assert str(error.value).startswith("layer_map: ")
    assert message in str(error.value)


def test_equal_widths_need_no_projection() -> None:
    projection = Projection(pairs=2, student_width=8, teacher_width=8, seed=0)
    states = torch.randn(4, 2, 8)
    assert projection(states) is states
    assert not list(projection.parameters())


def test_each_pair_has_a_linear_map_of_its_own() -> None:
    projection = Projection(pairs=2, student_width=8, teacher_width=12, seed=0)
    assert projection.weight is not None
    assert projection.bias is not None
    torch.nn.init.normal_(projection.bias)
    states = torch.randn(4, 2, 8)
    expected = [
        torch.nn.functional.linear(states[:, i], projection.weight[i], projection.bias[i]) for i in range(2)
    ]
    torch.testing.assert_close(projection(states), torch.stack(expected, dim=1))
    assert not torch.equal(projection.weight[0], projection.weight[1])


def test_the_first_weights_depend_on_the_seed_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (Projection(2, 8, 12, seed).state_dict()["weight"] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_it_takes_half_precision_and_learns() -> None:
    projection = Projection(2, 8, 12, seed=0)
    states = torch.randn(4, 2, 8, dtype=torch.float16, requires_grad=True)
    projection(states).square().mean().backward()
    for gradient in (states.grad, *(parameter.grad for parameter in projection.parameters())):
        assert gradient is not None
        assert torch.isfinite(gradient).all()
        assert gradient.abs().sum() > 0
