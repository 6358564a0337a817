"""Losses against numbers worked out by hand, by a second route, and at the edges."""

import math

import pytest
import torch
import torch.nn.functional as F

from student_trainer.losses import combine, distillation_loss, label_loss

STUDENT = torch.tensor([[0.5, 0.5], [0.8, 0.2]]).log()
TEACHER = torch.tensor([[0.9, 0.1], [0.8, 0.2]]).log()


def test_kl_of_teacher_from_student_by_hand() -> None:
    # .9 ln(.9/.5) + .1 ln(.1/.5) = .529008 - .160944; the second row agrees
    loss = distillation_loss(STUDENT, TEACHER)
    assert loss.tolist() == pytest.approx([0.368064, 0.0], abs=1e-6)


def test_reverse_kl_is_eq_1_as_printed() -> None:
    # .5 ln(.5/.9) + .5 ln(.5/.1) = -.293893 + .804719
    loss = distillation_loss(STUDENT, TEACHER, divergence="reverse-kl")
    assert loss.tolist() == pytest.approx([0.510826, 0.0], abs=1e-6)


def test_mse_is_on_raw_logits() -> None:
    loss = distillation_loss(
        torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]]), temperature=4, divergence="mse"
    )
    assert loss.tolist() == [6.5]  # (4 + 9) / 2, whatever τ


def test_temperature_softens_both_and_scales_by_its_square() -> None:
    # at τ=2, ln p / 2 softens (.9, .1) to (.75, .25): .75 ln 1.5 + .25 ln .5 = .130812, times 4
    loss = distillation_loss(STUDENT[:1], TEACHER[:1], temperature=2)
    assert loss.item() == pytest.approx(4 * 0.130812, abs=1e-5)


def test_kl_has_the_gradient_of_soft_cross_entropy() -> None:
    student = torch.randn(6, 4, requires_grad=True)
    teacher = torch.randn(6, 4)
    (ours,) = torch.autograd.grad(distillation_loss(student, teacher).mean(), student)
    (other,) = torch.autograd.grad(F.cross_entropy(student, teacher.softmax(-1)), student)
    torch.testing.assert_close(ours, other)


def test_half_precision_and_extreme_logits_give_a_finite_loss_and_gradient() -> None:
    student = torch.tensor([[60.0, -60.0]], dtype=torch.float16, requires_grad=True)
    teacher = torch.tensor([[-60.0, 60.0]], dtype=torch.float16)
    loss = distillation_loss(student, teacher).mean()
    loss.backward()
    assert loss.item() == pytest.approx(120, rel=1e-3)
    assert torch.isfinite(student.grad).all()


def test_label_loss_leaves_unlabelled_rows_out() -> None:
    losses = label_loss(torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 0.0]]), torch.tensor([0, -1, 1]))
    assert losses.tolist() == pytest.approx([math.log(1 + math.exp(-2)), math.log(2)], abs=1e-6)


def test_combine_is_eq_3_over_means() -> None:
    loss = combine(torch.tensor([1.0, 3.0]), torch.tensor([10.0]), weight=0.25)
    assert loss is not None
    assert loss.item() == 0.75 * 2 + 0.25 * 10


def test_an_empty_term_is_skipped_and_the_other_counts_in_full() -> None:
    some, none = torch.tensor([2.0, 4.0]), torch.empty(0)
    for loss in (combine(some, none, weight=0.9), combine(none, some, weight=0.1)):
        assert loss is not None
        assert loss.item() == 3
    assert combine(none, none, weight=0.5) is None
