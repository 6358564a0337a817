"""The patient loss (eq. 12), the mixture of teachers (eq. 4), and the whole objective (eq. 3, 11)."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from student_trainer.dynamics.supervision import Weights, supervise
from student_trainer.losses import (
    Divergence,
    adopted_loss,
    combine,
    combine_by_row,
    distillation_loss,
    patient_loss,
)

DIVERGENCES: list[Divergence] = ["kl", "reverse-kl", "mse"]


def test_patient_loss_by_hand() -> None:
    student = torch.tensor([[[3.0, 4.0], [0.0, 2.0]], [[1.0, 0.0], [5.0, 0.0]]])
    teacher = torch.tensor([[[4.0, 3.0], [7.0, 0.0]], [[9.0, 0.0], [-1.0, 0.0]]])
    # (.6, .8) - (.8, .6): .08; (0, 1) - (1, 0): 2 | the same direction: 0; the opposite: 4
    assert patient_loss(student, teacher).tolist() == pytest.approx([2.08, 4.0], abs=1e-6)


def test_patient_loss_is_two_less_twice_the_cosine_of_each_pair() -> None:
    student, teacher = torch.randn(5, 3, 8), torch.randn(5, 3, 8)
    expected = (2 - 2 * F.cosine_similarity(student, teacher, dim=-1)).sum(dim=-1)
    torch.testing.assert_close(patient_loss(student, teacher), expected)


def test_each_vector_is_normalised_by_itself() -> None:
    # normalised over layers or instances, the scale of one would change the others
    student, teacher = torch.randn(4, 3, 8), torch.randn(4, 3, 8)
    scales = torch.rand(4, 3, 1) * 50 + 0.1
    expected = patient_loss(student, teacher)
    torch.testing.assert_close(patient_loss(student * scales, teacher / scales), expected)
    torch.testing.assert_close(patient_loss(student[:1], teacher[:1]), expected[:1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_zero_tiny_and_huge_vectors_have_a_finite_loss_and_gradient(dtype: torch.dtype) -> None:
    rows = [[0.0, 0.0], [6e-8, 0.0], [2e-4, 0.0], [60000.0, -60000.0], [1.0, 1.0]]
    student = torch.tensor(rows, dtype=dtype)[:, None].requires_grad_()
    for teacher in ([0.0, 0.0], [0.0, 1.0], [60000.0, 60000.0]):
        student.grad = None
        loss = patient_loss(student, torch.tensor(teacher, dtype=dtype).expand_as(student))
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss).all()
        loss.sum().backward()
        assert torch.isfinite(student.grad).all()
        assert (student.grad[0] == 0).all()


def test_a_zero_vector_adds_one() -> None:
    assert patient_loss(torch.zeros(1, 1, 3), torch.ones(1, 1, 3)).item() == pytest.approx(1)


def test_widths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3, 4\) of the student and \(2, 3, 1\)"):
        patient_loss(torch.ones(2, 3, 4), torch.ones(2, 3, 1))


def test_adopted_loss_by_hand() -> None:
    student = torch.tensor([[0.5, 0.5]]).log()
    teachers = torch.tensor([[[0.9, 0.1], [0.5, 0.5]]]).log()
    loss = adopted_loss(student, teachers, torch.tensor([[0.25, 0.75]]))
    assert loss.tolist() == pytest.approx([0.25 * 0.368064], abs=1e-6)


def test_losses_are_mixed_not_logits() -> None:
    # two sure teachers that contradict each other: their mean logits say nothing, their losses do
    teachers = torch.tensor([[[4.0, -4.0], [-4.0, 4.0]]])
    half = torch.tensor([[0.5, 0.5]])
    student = torch.zeros(1, 2)
    assert distillation_loss(student, teachers.mean(dim=1)).item() == 0
    assert adopted_loss(student, teachers, half).item() == pytest.approx(math.log(2), abs=0.01)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_one_teacher_of_weight_one_is_the_plain_loss_to_the_bit(divergence: Divergence) -> None:
    student, teacher = torch.randn(6, 4), torch.randn(6, 4)
    loss = adopted_loss(student, teacher[:, None], torch.ones(6, 1), 2.0, divergence)
    assert torch.equal(loss, distillation_loss(student, teacher, 2.0, divergence))


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("unasked", [float("nan"), float("inf"), -float("inf"), 60000.0])
def test_an_unasked_teacher_leaks_into_neither_loss_nor_gradient(
    divergence: Divergence, unasked: float
) -> None:
    student = torch.randn(4, 3, dtype=torch.float16)
    teachers = torch.randn(4, 2, 3, dtype=torch.float16)
    weights = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.3, 0.7], [0.0, 0.0]])

    def run(others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = student.clone().requires_grad_()
        loss = adopted_loss(logits, others, weights, divergence=divergence)
        return loss, torch.autograd.grad(loss.sum(), logits)[0]

    clean = run(teachers)
    dirty = run(teachers.masked_fill(weights[..., None] == 0, unasked))
    for expected, got in zip(clean, dirty, strict=True):
        assert torch.isfinite(got).all()
        assert torch.equal(got, expected)
    assert dirty[0][3] == 0  # nobody asked, nothing to learn


def test_the_teachers_get_no_gradient_where_unasked() -> None:
    teachers = torch.full((1, 2, 3), float("nan"))
    teachers[0, 0] = torch.tensor([1.0, 2.0, 3.0])
    teachers.requires_grad_()
    adopted_loss(torch.zeros(1, 3), teachers, torch.tensor([[1.0, 0.0]])).sum().backward()
    assert torch.isfinite(teachers.grad).all()


def _eq_3_alone(label: torch.Tensor, distillation: torch.Tensor, weight: float) -> torch.Tensor | None:
    """The objective as it was without weights of instances and without a patient loss."""
    means = [losses.mean() for losses in (label, distillation) if len(losses)]
    if len(means) == 2:
        return (1 - weight) * means[0] + weight * means[1]
    return means[0] if means else None


@given(
    label=st.lists(st.floats(0, 50, width=32), max_size=8),
    distillation=st.lists(st.floats(0, 50, width=32), max_size=8),
    weight=st.floats(0, 1),
)
def test_without_weights_the_objective_is_eq_3_to_the_bit(
    label: list[float], distillation: list[float], weight: float
) -> None:
    results = []
    for objective in (combine, _eq_3_alone):
        terms = [torch.tensor(losses, requires_grad=True) for losses in (label, distillation)]
        loss = objective(*terms, weight)
        if loss is not None:
            loss.backward()
        results.append([loss] + [term.grad for term in terms])
    for ours, before in zip(*results, strict=True):
        assert (ours is None) == (before is None)
        if ours is not None and before is not None:
            assert torch.equal(ours, before)


LABEL, DISTANCE, PATIENT = torch.tensor([1.0, 3.0, 5.0]), torch.tensor([2.0, 4.0]), torch.tensor([0.5, 1.5])
WEIGHTS = Weights(torch.tensor([0.5, 0.25]), torch.tensor([2.0, 4.0]))
NOTHING = torch.empty(0)


def value(loss: torch.Tensor | None) -> float:
    assert loss is not None
    return loss.item()


def test_the_whole_objective_by_hand() -> None:
    # .5 · 3 + (.5 · 2 + .25 · 4) / 2 + (2 · .5 + 4 · 1.5) / 2
    assert value(combine(LABEL, DISTANCE, 0.5, WEIGHTS, PATIENT)) == 1.5 + 1.0 + 3.5


def test_weights_without_a_patient_loss() -> None:
    assert value(combine(LABEL, DISTANCE, 0.5, WEIGHTS)) == 1.5 + 1.0


def test_without_labels_the_teacher_counts_in_full() -> None:
    # both of the teacher's terms over λ, so that their proportion stays
    assert value(combine(NOTHING, DISTANCE, 0.5, WEIGHTS, PATIENT)) == 2.0 + 7.0
    constant = supervise(torch.zeros(2), 2, "static", 0.3, 1.2)
    assert value(combine(NOTHING, DISTANCE, 0.3, constant)) == pytest.approx(3.0)
    assert value(combine(NOTHING, DISTANCE, 0.3, constant, PATIENT)) == pytest.approx(3.0 + 4 * 1.0)


def test_without_answers_the_labels_count_in_full() -> None:
    weights = Weights(NOTHING, NOTHING)
    assert value(combine(LABEL, NOTHING, 0.9, weights, NOTHING)) == 3.0
    assert combine(NOTHING, NOTHING, 0.9, weights, NOTHING) is None


def test_terms_may_have_different_instances() -> None:
    weights = Weights(torch.tensor([0.5, 0.25]), torch.tensor([2.0]))
    assert value(combine(LABEL, DISTANCE, 0.5, weights, torch.tensor([3.0]))) == 1.5 + 1.0 + 6.0
    assert value(combine(LABEL, NOTHING, 0.5, weights, torch.tensor([3.0]))) == 1.5 + 6.0


def test_constant_weights_agree_with_the_plain_ones() -> None:
    for label in (LABEL, NOTHING):
        constant = supervise(torch.zeros(2), 2, "none", 0.3, 9.0)
        plain = value(combine(label, DISTANCE, 0.3))
        assert value(combine(label, DISTANCE, 0.3, constant, PATIENT)) == pytest.approx(plain)


def test_no_weight_on_predictions_leaves_the_patient_loss() -> None:
    weights = supervise(torch.zeros(2), 2, "static", 0.0, 2.0)
    assert value(combine(NOTHING, DISTANCE, 0.0, weights, PATIENT)) == 2.0


def test_a_patient_loss_needs_weights() -> None:
    with pytest.raises(ValueError, match="patient losses need weights"):
        combine(LABEL, DISTANCE, 0.5, patient=PATIENT)


ALL, SOME = torch.tensor([True, True, True]), torch.tensor([True, False, True])


def test_by_row_each_row_counts_alike() -> None:
    # labels of rows 0 and 2, answers about 1 and 2: (1 + 2 + (.5 · 3 + .5 · 4)) / 3
    loss = combine_by_row(torch.tensor([1.0, 3.0]), SOME, DISTANCE, [1, 2], 0.5)
    assert value(loss) == pytest.approx((1 + 2 + 1.5 + 2) / 3)


def test_by_row_one_answer_among_many_labels_weighs_as_one_row() -> None:
    labels = torch.ones(100)
    weighed = value(combine_by_row(labels, labels.bool(), torch.tensor([9.0]), [7], 0.5))
    assert weighed == pytest.approx((99 * 1 + 0.5 * 1 + 0.5 * 9) / 100)
    assert value(combine(labels, torch.tensor([9.0]), 0.5)) == 5.0  # half of all


def test_by_row_with_hidden_states() -> None:
    # row 1 has no label: all of its answer over λ; row 2 has both
    loss = combine_by_row(torch.tensor([1.0, 3.0]), SOME, DISTANCE, [1, 2], 0.5, WEIGHTS, PATIENT)
    assert value(loss) == pytest.approx((1 + 2 * (0.5 * 2 + 2 * 0.5) + 1.5 + (0.25 * 4 + 4 * 1.5)) / 3)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("told", [(None, None), (WEIGHTS, PATIENT)])
def test_by_row_is_the_same_where_all_rows_have_the_same(
    weight: float, told: tuple[Weights | None, torch.Tensor | None]
) -> None:
    pair = LABEL[:2]
    both = combine_by_row(pair, ALL[:2], DISTANCE, [0, 1], weight, *told)
    alone = combine_by_row(NOTHING, ~ALL[:2], DISTANCE, [0, 1], weight, *told)
    assert value(both) == pytest.approx(value(combine(pair, DISTANCE, weight, *told)))
    assert value(alone) == pytest.approx(value(combine(NOTHING, DISTANCE, weight, *told)))


def test_by_row_a_patient_loss_needs_weights_and_they_it() -> None:
    for told in ((None, PATIENT), (WEIGHTS, None)):
        with pytest.raises(ValueError, match="belong together"):
            combine_by_row(LABEL[:2], ALL[:2], DISTANCE, [0, 1], 0.5, *told)
