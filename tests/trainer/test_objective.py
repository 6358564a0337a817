"""Eq. 3, 4 and 11-13 over one batch, against the formulas written out."""

import math

import numpy as np
import pytest
import torch
from tiny_task import LABELS

from student_trainer.config import DistillSettings
from student_trainer.layers import Projection
from student_trainer.objective import Lessons, Match, Predictions, objective
from teacher_api.messages import Answer, Outputs

SAME = Match(range(len(LABELS)))
OURS = [[1.0, 0.0, -1.0], [0.2, 0.1, 0.0]]
THEIRS = [[[2.0, 0.0, 0.0], [0.0, 3.0, 0.0]], [[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]]  # [instance][teacher]


def settings_of(**given: object) -> DistillSettings:
    fixed = {"data": "d", "output": "o", "student": "s", "teacher": "local:small,local:large"}
    return DistillSettings(**fixed | {"adoption": "soft"} | given)


def answer(logits: list[float], **hidden: list[float]) -> Answer:
    states = {int(layer[1:]): np.array(state, np.float32) for layer, state in hidden.items()}
    return Answer(Outputs(np.array(logits, np.float32), states))


def kl(student: list[float], teacher: list[float]) -> float:
    log_q, log_p = (
        [x - math.log(sum(map(math.exp, logits))) for x in logits] for logits in (student, teacher)
    )
    return sum(math.exp(p) * (p - q) for p, q in zip(log_p, log_q, strict=True))


def loss_of(
    answers: list[list[Answer | None]], weights: list[list[float]], settings: DistillSettings
) -> float:
    student = Predictions(torch.tensor(OURS), {})
    lessons = Lessons.of(answers, torch.tensor(weights), [SAME, SAME])
    loss = objective(student, torch.tensor([-1, -1]), [0, 1], lessons, settings, [SAME, SAME], [])
    assert loss is not None
    return float(loss)


def test_two_teachers_losses_are_mixed() -> None:
    weights = [[0.25, 0.75], [1.0, 0.0]]
    answers = [[answer(row) for row in rows] for rows in THEIRS]
    answers[1][1] = None
    expected = 0.25 * kl(OURS[0], THEIRS[0][0]) + 0.75 * kl(OURS[0], THEIRS[0][1]) + kl(OURS[1], THEIRS[1][0])
    assert loss_of(answers, weights, settings_of()) == pytest.approx(expected / 2, rel=1e-5)


def test_a_teacher_that_the_budget_refused_leaves_its_weight_to_the_others() -> None:
    answers = [[None, answer(THEIRS[0][1])], [answer(THEIRS[1][0]), answer(THEIRS[1][1])]]
    expected = kl(OURS[0], THEIRS[0][1]) + sum(kl(OURS[1], row) for row in THEIRS[1]) / 2
    assert loss_of(answers, [[0.9, 0.1], [0.5, 0.5]], settings_of()) == pytest.approx(expected / 2, rel=1e-5)


def test_each_teacher_has_its_own_order_of_classes() -> None:
    turned = Match([2, 0, 1])
    one, other = (
        Lessons.of([[answer(logits)]], torch.ones(1, 1), [match])
        for logits, match in (([1.0, 2.0, 3.0], SAME), ([2.0, 3.0, 1.0], turned))
    )
    assert torch.equal(one.logits, other.logits)


@pytest.mark.parametrize("supervision", ["static", "dynamic"])
def test_hidden_states_by_hand(supervision: str) -> None:
    """Two instances, one teacher, two matched layers of width 2: directions differ by a known angle."""
    settings = settings_of(
        teacher="local:t", adoption="single", supervision=supervision, kd_weight=0.5, patient_weight=3.0
    )
    match = Match(range(3), [(2, 1), (4, 2)])
    ours = {1: torch.tensor([[3.0, 0.0], [0.0, 1.0]]), 2: torch.tensor([[1.0, 1.0], [1.0, 0.0]])}
    told = [
        answer(THEIRS[0][0], l2=[0.0, 5.0], l4=[2.0, 2.0]),
        answer(THEIRS[1][0], l2=[0.0, -2.0], l4=[3.0, 0.0]),
    ]
    patient = [2.0, 4.0]  # at right angles and the same; opposite and the same
    lessons = Lessons.of([[one] for one in told], torch.ones(2, 1), [match])
    student = Predictions(torch.tensor(OURS), ours)
    gold = torch.tensor([0, -1])
    loss = objective(student, gold, [0, 1], lessons, settings, [match], [Projection(2, 2, 2, 0)])

    shares = [1.0, 1.0], [1.0, 1.0]
    if supervision == "dynamic":
        probabilities = torch.tensor(OURS).softmax(-1)
        doubt = (-(probabilities * probabilities.log()).sum(-1) / math.log(3)).tolist()
        shares = [1 - u for u in doubt], doubt
    expected = 0.5 * float(-torch.tensor(OURS[0]).log_softmax(-1)[0])
    for row in (0, 1):
        expected += 0.5 * shares[0][row] * kl(OURS[row], THEIRS[row][0]) / 2
        expected += 3.0 * shares[1][row] * patient[row] / 2
    assert loss is not None
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("average_over", ["losses", "rows"])
def test_one_answer_among_labels(average_over: str) -> None:
    """Three rows with labels, and an answer about the last of them."""
    settings = settings_of(teacher="local:t", adoption="single", kd_weight=0.25, average_over=average_over)
    logits, gold = [*OURS, [0.0, 2.0, 0.0]], [0, 2, 1]
    lessons = Lessons.of([[answer(THEIRS[0][0])]], torch.ones(1, 1), [SAME])
    student = Predictions(torch.tensor(logits), {})
    loss = objective(student, torch.tensor(gold), [2], lessons, settings, [SAME], [])

    first, second, last = (
        float(-torch.tensor(row).log_softmax(-1)[label]) for row, label in zip(logits, gold, strict=True)
    )
    distance = kl(logits[2], THEIRS[0][0])
    expected = 0.75 * (first + second + last) / 3 + 0.25 * distance
    if average_over == "rows":
        expected = (first + second + 0.75 * last + 0.25 * distance) / 3
    assert loss is not None
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_only_those_who_were_asked_teach_their_states() -> None:
    """A teacher of another width, asked about the second instance alone, gives its projection a gradient."""
    settings = settings_of(supervision="static")
    small, large = Match(range(3), [(1, 1)]), Match(range(3), [(2, 1)])
    projections = [Projection(1, 2, 2, 0), Projection(1, 2, 3, 0)]
    ours = torch.tensor([[3.0, 0.0], [0.0, 1.0]], requires_grad=True)
    answers = [
        [answer(THEIRS[0][0], l1=[0.0, 1.0]), None],
        [None, answer(THEIRS[1][1], l2=[0.0, 1.0, 0.5])],
    ]
    lessons = Lessons.of(answers, torch.eye(2), [small, large])
    student = Predictions(torch.tensor(OURS), {1: ours})
    loss = objective(student, torch.tensor([-1, -1]), [0, 1], lessons, settings, [small, large], projections)
    assert loss is not None
    loss.backward()
    weight = projections[1].weight
    assert weight is not None
    assert weight.grad is not None
    assert weight.grad.isfinite().all()
    assert weight.grad.abs().sum() > 0
    assert ours.grad is not None
    assert ours.grad.isfinite().all()
    assert ours.grad.abs().sum(1).min() > 0


@pytest.mark.parametrize("width", [2, 3])
def test_a_teacher_who_was_asked_nothing_teaches_no_states(width: int) -> None:
    """As where hard adoption has one instance for two teachers, or soft has three teachers."""
    settings = settings_of(supervision="static")
    matches = [Match(range(3), [(1, 1)]), Match(range(3), [(2, 1)])]
    projections = [Projection(1, 2, width, 0), Projection(1, 2, 2, 0)]
    answers = [[None, answer(row[1], l2=[0.0, 1.0])] for row in THEIRS]
    lessons = Lessons.of(answers, torch.tensor([[0.0, 1.0], [0.0, 1.0]]), matches)
    student = Predictions(torch.tensor(OURS), {1: torch.tensor([[1.0, 0.0], [0.0, 1.0]])})
    gold = torch.tensor([-1, -1])
    loss = objective(student, gold, [0, 1], lessons, settings, matches, projections)
    expected = sum(kl(OURS[row], THEIRS[row][1]) for row in (0, 1)) / 2
    expected += settings.patient_weight / settings.kd_weight * (2.0 + 0.0) / 2
    assert loss is not None
    assert float(loss) == pytest.approx(expected, rel=1e-5)
