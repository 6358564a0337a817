"""Which teacher is asked about which instance, and its weight: literals, and what must hold for any batch."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from student_trainer.dynamics.adoption import Adoption, adopt
from student_trainer.dynamics.uncertainty import entropy, normalised

U = math.log(2)
SEVERAL: list[Adoption] = ["ensemble", "hard", "soft", "soft-batch"]
shares = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20, unique=True)


def test_a_single_teacher_teaches_all() -> None:
    assert adopt(torch.tensor([0.1, 0.6]), 1, "single", classes=2).tolist() == [[1], [1]]


def test_an_ensemble_weighs_all_alike() -> None:
    assert adopt(torch.tensor([0.1, 0.6]), 2, "ensemble", classes=2).tolist() == [[0.5, 0.5]] * 2
    third = pytest.approx(1 / 3)
    assert adopt(torch.tensor([0.1]), 3, "ensemble", classes=2).tolist() == [[third, third, third]]


@pytest.mark.parametrize(
    ("doubt", "teachers", "asked"),
    [
        ([0.1, 0.6, 0.3, 0.5], 2, [1, 0, 1, 0]),  # the doubtful half asks the small one
        ([0.1, 0.6, 0.3, 0.5, 0.2], 2, [1, 0, 1, 0, 1]),  # odd: two small, three large
        ([0.4], 2, [1]),
        ([0.4], 3, [2]),
        ([], 2, []),
        ([0.1, 0.6, 0.3], 3, [2, 0, 1]),
        ([0.1, 0.6, 0.3, 0.5, 0.2], 3, [2, 0, 1, 1, 2]),  # 1, 2, 2
        ([0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1], 3, [0, 0, 1, 1, 2, 2, 2]),
        ([0.5, 0.5, 0.5, 0.5, 0.5], 2, [0, 0, 1, 1, 1]),  # ties keep the batch's order
    ],
)
def test_hard_gives_each_quantile_of_doubt_one_teacher(
    doubt: list[float], teachers: int, asked: list[int]
) -> None:
    weights = adopt(torch.tensor(doubt), teachers, "hard", classes=2)
    assert weights.shape == (len(doubt), teachers)
    assert weights.sum(dim=1).tolist() == [1] * len(doubt)
    assert weights.argmax(dim=1).tolist() == asked


def test_hard_is_stable_on_many_ties() -> None:
    weights = adopt(torch.zeros(301), 2, "hard", classes=2)  # an unstable sort shuffles more than 16
    assert weights.argmax(dim=1).tolist() == [0] * 150 + [1] * 151


def test_soft_is_eq_6_for_each_instance() -> None:
    # p = (.9, .1): u = .325083, u/U = .468996
    doubt = entropy(torch.tensor([[0.9, 0.1], [0.5, 0.5], [1.0, 0.0]]).log())
    weights = adopt(doubt, 2, "soft", classes=2)
    assert weights[0].tolist() == pytest.approx([0.468996, 0.531004], abs=1e-6)
    assert weights[1].tolist() == pytest.approx([1, 0], abs=1e-6)
    assert weights[2].tolist() == [0, 1]  # sure: the small teacher is not asked at all


@given(shares=shares)
def test_soft_with_two_teachers_is_the_papers_formula_to_the_bit(shares: list[float]) -> None:
    doubt = torch.tensor(shares) * math.log(3)
    small = normalised(doubt, 3)
    assert torch.equal(adopt(doubt, 2, "soft", classes=3), torch.stack([small, 1 - small], dim=1))


def test_soft_with_three_walks_from_the_largest_to_the_smallest() -> None:
    weights = adopt(torch.tensor([0.0, 0.125, 0.5, 0.75, 1.0]) * U, 3, "soft", classes=2)
    expected = [[0, 0, 1], [0, 0.25, 0.75], [0, 1, 0], [0.5, 0.5, 0], [1, 0, 0]]
    torch.testing.assert_close(weights, torch.tensor(expected))


def test_soft_batch_uses_the_mean_for_all() -> None:
    weights = adopt(torch.tensor([0.0, 0.5, 1.0]) * U / 2, 2, "soft-batch", classes=2)
    torch.testing.assert_close(weights, torch.tensor([[0.25, 0.75]] * 3))


@pytest.mark.parametrize("adoption", ["soft", "soft-batch"])
def test_rounding_above_ln_c_makes_no_negative_weight(adoption: Adoption) -> None:
    for teachers in (2, 3):
        weights = adopt(torch.tensor([U * 1.00001, -1e-7]), teachers, adoption, classes=2)
        assert weights.min() >= 0
        assert weights.max() <= 1


@pytest.mark.parametrize("adoption", SEVERAL)
@given(shares=shares, teachers=st.integers(2, 5), seed=st.integers(0, 1000))
def test_rows_sum_to_one_and_follow_a_permuted_batch(
    adoption: Adoption, shares: list[float], teachers: int, seed: int
) -> None:
    doubt = (torch.tensor(shares) * math.log(4)).unique()  # rounding may make ties
    order = torch.randperm(len(doubt), generator=torch.Generator().manual_seed(seed))
    weights = adopt(doubt, teachers, adoption, classes=4)
    assert weights.dtype == torch.float32
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(doubt)))
    torch.testing.assert_close(weights[order], adopt(doubt[order], teachers, adoption, classes=4))


@pytest.mark.parametrize("adoption", ["hard", "soft"])
@given(shares=shares, teachers=st.integers(2, 5))
def test_more_doubt_never_means_a_larger_teacher(
    adoption: Adoption, shares: list[float], teachers: int
) -> None:
    doubt = torch.tensor(sorted(shares)) * math.log(4)
    weights = adopt(doubt, teachers, adoption, classes=4)
    size = weights @ torch.arange(teachers, dtype=torch.float32)  # the mean teacher
    assert (size.diff() <= 1e-5).all()


@given(shares=shares, teachers=st.integers(2, 5))
def test_soft_asks_two_neighbours_at_most(shares: list[float], teachers: int) -> None:
    weights = adopt(torch.tensor(shares) * U, teachers, "soft", classes=2)
    for row in weights:
        asked = row.nonzero().flatten()
        assert 1 <= len(asked) <= 2
        assert asked.max() - asked.min() <= 1


@pytest.mark.parametrize("adoption", SEVERAL)
def test_weights_have_no_gradient(adoption: Adoption) -> None:
    doubt = torch.tensor([0.1, 0.5], requires_grad=True)
    assert not adopt(doubt, 2, adoption, classes=2).requires_grad


@pytest.mark.parametrize("adoption", SEVERAL)
def test_half_precision_gives_float32(adoption: Adoption) -> None:
    weights = adopt(torch.tensor([0.1, 0.5], dtype=torch.float16), 2, adoption, classes=2)
    assert weights.dtype == torch.float32


@pytest.mark.parametrize("adoption", SEVERAL)
@pytest.mark.parametrize("teachers", [0, 1])
def test_a_choice_needs_two_teachers(adoption: Adoption, teachers: int) -> None:
    with pytest.raises(ValueError, match=rf"adoption: '{adoption}'.*not {teachers}; name another teacher"):
        adopt(torch.zeros(2), teachers, adoption, classes=2)


def test_single_takes_exactly_one_teacher() -> None:
    with pytest.raises(ValueError, match="adoption: 'single' asks one teacher, not 2; name one teacher"):
        adopt(torch.zeros(2), 2, "single", classes=2)


@pytest.mark.parametrize("adoption", SEVERAL)
def test_one_class_has_no_doubt(adoption: Adoption) -> None:
    with pytest.raises(ValueError, match=r"classes: 1 .*two classes or more"):
        adopt(torch.zeros(2), 2, adoption, classes=1)
