"""The weights of eq. 13 against numbers worked out by hand, and what must hold for any batch."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from student_trainer.dynamics.supervision import Supervision, supervise
from student_trainer.dynamics.uncertainty import normalised

ALL: list[Supervision] = ["none", "static", "dynamic"]
doubts = st.lists(st.floats(0, math.log(3)), min_size=1, max_size=20)


def test_dynamic_is_eq_13() -> None:
    # p = (.9, .1): u = .325083, u/U = .468996; λ* = .5 and 100
    weights = supervise(torch.tensor([0.325083, 0.0]), 2, "dynamic", kd_weight=0.5, patient_weight=100)
    assert weights.distillation.tolist() == pytest.approx([0.265502, 0.5], abs=1e-6)
    assert weights.patient.tolist() == pytest.approx([46.8996, 0.0], abs=1e-4)


def test_static_and_none_are_constants() -> None:
    doubt = torch.tensor([0.1, 0.6])
    static = supervise(doubt, 2, "static", kd_weight=0.7, patient_weight=10)
    none = supervise(doubt, 2, "none", kd_weight=0.7, patient_weight=10)
    assert torch.equal(static.distillation, torch.full((2,), 0.7))
    assert torch.equal(static.patient, torch.full((2,), 10.0))
    assert torch.equal(none.distillation, torch.full((2,), 0.7))
    assert torch.equal(none.patient, torch.zeros(2))


@given(doubts=doubts, seed=st.integers(0, 1000))
def test_dynamic_weights_share_one_whole_and_follow_a_permuted_batch(doubts: list[float], seed: int) -> None:
    doubt = torch.tensor(doubts)
    order = torch.randperm(len(doubt), generator=torch.Generator().manual_seed(seed))
    weights, permuted = (supervise(d, 3, "dynamic", 0.5, 20) for d in (doubt, doubt[order]))
    assert torch.equal(weights.distillation[order], permuted.distillation)
    assert torch.equal(weights.patient[order], permuted.patient)
    assert weights.distillation.min() >= 0
    torch.testing.assert_close(weights.distillation / 0.5 + weights.patient / 20, torch.ones(len(doubt)))


def test_more_doubt_means_more_of_the_patient_loss() -> None:
    weights = supervise(torch.linspace(0, math.log(3), 9), 3, "dynamic", 0.5, 20)
    assert (weights.distillation.diff() < 0).all()
    assert (weights.patient.diff() > 0).all()


@pytest.mark.parametrize("supervision", ALL)
def test_weights_are_float32_without_gradient(supervision: Supervision) -> None:
    doubt = torch.tensor([0.1, 0.6], dtype=torch.float16, requires_grad=True)
    for weight in supervise(doubt, 2, supervision, 0.5, 20):
        assert weight.shape == (2,)
        assert weight.dtype == torch.float32
        assert not weight.requires_grad


@pytest.mark.parametrize("supervision", ALL)
def test_one_class_has_no_doubt(supervision: Supervision) -> None:
    with pytest.raises(ValueError, match=r"classes: 1 .*two classes or more"):
        supervise(torch.zeros(2), 1, supervision, 0.5, 20)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_normalised_doubt_is_clamped_to_0_and_1(classes: int) -> None:
    share = normalised(torch.tensor([-1e-7, 0.0, 0.5, 1.0, 1.00001]) * math.log(classes), classes)
    assert share.tolist() == pytest.approx([0, 0, 0.5, 1, 1])
    assert share.min() >= 0
    assert share.max() <= 1
