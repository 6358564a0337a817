"""What one batch teaches: eq. 3, 4 and 11-13 over the rows with labels and the rows with answers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from student_trainer.config import DistillSettings
from student_trainer.dynamics.supervision import Weights, supervise
from student_trainer.dynamics.uncertainty import entropy
from student_trainer.layers import Projection
from student_trainer.losses import adopted_loss, combine, combine_by_row, label_loss, patient_loss
from teacher_api.messages import Answer


@dataclass(frozen=True)
class Match:
    """How one teacher's outputs meet the student's.

    Attributes:
        classes: the teacher's class at each of the student's classes.
        layers: matched layers (teacher's, student's); none without a patient loss.
    """

    classes: Sequence[int]
    layers: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True)
class Predictions:
    """The student's, with gradient: logits [n, C], and its pooled hidden states [n, h] by layer."""

    logits: Tensor
    states: Mapping[int, Tensor]

    def __getitem__(self, rows: Sequence[int]) -> "Predictions":
        chosen = list(rows)
        return Predictions(
            self.logits[chosen], {layer: state[chosen] for layer, state in self.states.items()}
        )


@dataclass(frozen=True)
class Lessons:
    """What teachers answered about m instances. Where a weight is zero, no answer came.

    Attributes:
        weights: of each teacher for each instance [m, T]; rows sum to one.
        logits: in the order of the student's classes [m, T, C]; zero where no answer came.
        states: each teacher's matched layers [m, L, h]; zero where no answer came.
    """

    weights: Tensor
    logits: Tensor
    states: Sequence[Tensor]

    @classmethod
    def of(
        cls, answers: Sequence[Sequence[Answer | None]], weights: Tensor, matches: Sequence[Match]
    ) -> "Lessons":
        """Of answers by instance and teacher, [m][T], and the weights that adoption gave them.

        Where a budget refused one of an instance's teachers, the others share its weight.
        """
        came = torch.tensor([[answer is not None for answer in row] for row in answers])
        kept = torch.where(came, weights, 0)
        kept = torch.where(came.all(1, keepdim=True), kept, kept / kept.sum(1, keepdim=True))
        columns = list(zip(*answers, strict=True))
        logits = [_logits(column, match.classes) for column, match in zip(columns, matches, strict=True)]
        states = [_states(column, match) for column, match in zip(columns, matches, strict=True)]
        return cls(kept, torch.stack(logits, dim=1), states)

    @property
    def targets(self) -> Tensor:
        """The teachers' predictions, mixed by their weights: probabilities [m, C]."""
        return (self.weights[..., None] * self.logits.softmax(dim=-1)).sum(dim=1)

    def to(self, device: torch.device) -> "Lessons":
        return Lessons(
            self.weights.to(device), self.logits.to(device), [state.to(device) for state in self.states]
        )


def objective(
    student: Predictions,
    labels: Tensor,
    places: Sequence[int],
    lessons: Lessons | None,
    settings: DistillSettings,
    matches: Sequence[Match],
    projections: Sequence[Projection],
) -> Tensor | None:
    """A scalar, or None if there is nothing to learn from.

    The doubt that weighs objectives (eq. 13) is that of the very predictions that are learnt from.

    Args:
        student: of n rows.
        labels: [n], -1 for none.
        places: the rows, m of the n, that the lessons are about.
        lessons: None if m is 0.
        settings: λ, τ, divergence, supervision, and what losses are averaged over.
        matches: of each teacher.
        projections: of each teacher, from the student's width to its own; none without a patient loss.
    """
    labels = labels.to(student.logits.device)
    gold = label_loss(student.logits, labels)
    if lessons is None:
        return combine(gold, student.logits[:0, 0], settings.kd_weight)
    ours, lessons = student[places], lessons.to(student.logits.device)
    distance = adopted_loss(
        ours.logits, lessons.logits, lessons.weights, settings.temperature, settings.divergence
    )
    weights = patient = None
    if settings.supervision != "none":
        weights, patient = _weights(ours, settings), _patient(ours.states, lessons, matches, projections)
    if settings.average_over == "rows":
        return combine_by_row(gold, labels >= 0, distance, places, settings.kd_weight, weights, patient)
    return combine(gold, distance, settings.kd_weight, weights, patient)


def kl_weight(student: Predictions, places: Sequence[int], settings: DistillSettings) -> float:
    """Mean λ_KL over the rows that the lessons are about (Figure 6); NaN without lessons or supervision."""
    if settings.supervision == "none" or not places:
        return math.nan
    return _weights(student[places], settings).distillation.mean().item()


def _weights(ours: Predictions, settings: DistillSettings) -> Weights:
    doubt, classes = entropy(ours.logits), ours.logits.shape[-1]
    return supervise(doubt, classes, settings.supervision, settings.kd_weight, settings.patient_weight)


def _patient(
    ours: Mapping[int, Tensor],
    lessons: Lessons,
    matches: Sequence[Match],
    projections: Sequence[Projection],
) -> Tensor:
    """Eq. 12 against each teacher, mixed by the same weights as its predictions: [m]."""
    total = lessons.weights.new_zeros(len(lessons.weights))
    sides = zip(lessons.weights.T, lessons.states, matches, projections, strict=True)
    for weight, theirs, match, projection in sides:
        taught = weight.nonzero().flatten()
        if not len(taught):
            continue  # nothing came of this teacher: not even a width
        states = torch.stack([ours[layer][taught] for _, layer in match.layers], dim=1)
        losses = patient_loss(projection(states), theirs[taught])
        total = total.index_add(0, taught, weight[taught] * losses)
    return total


def _logits(answers: Sequence[Answer | None], classes: Sequence[int]) -> Tensor:
    """[m, C]"""
    rows = [answer.outputs.logits if answer and answer.outputs else None for answer in answers]
    found = np.zeros((len(rows), len(classes)), np.float32)
    for place, row in enumerate(rows):
        if row is not None:
            found[place] = row[list(classes)]
    return torch.from_numpy(found)


def _states(answers: Sequence[Answer | None], match: Match) -> Tensor:
    """[m, L, h]; h is 0 if nothing came."""
    rows = [answer.outputs.hidden if answer and answer.outputs else {} for answer in answers]
    width = max((len(state) for row in rows for state in row.values()), default=0)
    found = np.zeros((len(rows), len(match.layers), width), np.float32)
    for place, row in enumerate(rows):
        if row:
            found[place] = [row[layer] for layer, _ in match.layers]
    return torch.from_numpy(found)
