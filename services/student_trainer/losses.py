"""What the student is asked to minimise (eq. 1-4, 11-12): one value for each instance, averaged by `combine`,
or by `combine_by_row`.

Teachers send logits at temperature 1; softening both sides, and the factor τ² that keeps the gradient's
size (Hinton et al., 2015), happen here and nowhere else. All of it in float32.
"""

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from student_trainer.dynamics.supervision import Weights

Divergence = Literal["kl", "reverse-kl", "mse"]
_SHORTEST = 1e-4  # norm below which a vector has no direction; a gradient of 2/norm still fits in float16


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with the gold label (eq. 2). [n, C], [n] -> [m]; rows labelled -1 (none) are left out."""
    known = labels >= 0
    return F.cross_entropy(logits[known].float(), labels[known], reduction="none")


def distillation_loss(
    student: Tensor, teacher: Tensor, temperature: float = 1.0, divergence: Divergence = "kl"
) -> Tensor:
    """Distance from the student's prediction to the teacher's. Two logits [n, C] -> [n].

    Args:
        student: logits with gradient.
        teacher: logits at temperature 1.
        temperature: τ of eq. 1.
        divergence: `kl` is KL(teacher ‖ student)·τ², summed over classes, as the released code has it;
            `reverse-kl` the direction that eq. 1 prints; `mse` the squared distance of the raw logits,
            averaged over classes.
    """
    student, teacher = student.float(), teacher.float()
    if divergence == "mse":
        return F.mse_loss(student, teacher, reduction="none").mean(dim=-1)
    ours, theirs = (F.log_softmax(logits / temperature, dim=-1) for logits in (student, teacher))
    source, target = (ours, theirs) if divergence == "kl" else (theirs, ours)
    return F.kl_div(source, target, reduction="none", log_target=True).sum(dim=-1) * temperature**2


def adopted_loss(
    student: Tensor,
    teachers: Tensor,
    weights: Tensor,
    temperature: float = 1.0,
    divergence: Divergence = "kl",
) -> Tensor:
    """Eq. 4, a mixture of several teachers' losses: [n, C], [n, T, C], [n, T] -> [n].

    Losses are mixed, not logits: the mean of two teachers' logits is the prediction of neither.

    Args:
        student: logits with gradient.
        teachers: logits at temperature 1; where the weight is zero they are not read, and may be NaN.
        weights: of each teacher for each instance (dynamics/adoption.py).
        temperature: τ of eq. 1.
        divergence: as in `distillation_loss`.
    """
    unasked = (weights == 0)[..., None]
    teachers = teachers.masked_fill(unasked, 0)  # before the maths: 0 · NaN is NaN
    losses = distillation_loss(student[:, None].expand_as(teachers), teachers, temperature, divergence)
    return (weights * losses).sum(dim=-1)


def patient_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of the directions of L matched hidden states (eq. 12). Two [n, L, h] -> [n], 0 to 4L.

    Each vector is normalised over h alone, so that neither its length nor another token or layer counts;
    the L distances are summed. (A mean over h and L is h·L times smaller: it wants a weight so much larger.)
    A zero vector has no direction: it adds 1, and no gradient.

    Raises:
        ValueError: the shapes differ; widths are made equal by layers.Projection.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"hidden states: {tuple(student.shape)} of the student and {tuple(teacher.shape)} differ"
        )
    return (_direction(student) - _direction(teacher)).square().sum(dim=(-2, -1))


def token_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared distance of L matched layers' hidden states, token by token (TinyBERT's general stage).

    Two [n, L, T, h] and a mask [n, T] of the real tokens, at least one -> [n]: the mean over these and h,
    summed over layers. Padding is not read, and may be NaN.
    """
    return _masked_mean(student, teacher, mask[:, None, :, None])


def attention_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared distance of L matched layers' attention probabilities, head by head.

    Two [n, L, H, T, T] and a mask [n, T] -> [n]: the mean over heads and pairs of real tokens, summed over
    layers.
    """
    pairs = mask[:, :, None] & mask[:, None, :]
    return _masked_mean(student, teacher, pairs[:, None, None])


def _masked_mean(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """[n, L, …] -> [n]"""
    if student.shape != teacher.shape:
        raise ValueError(f"{tuple(student.shape)} of the student and {tuple(teacher.shape)} differ")
    real = mask.expand_as(student)
    ours, theirs = (states.float().masked_fill(~real, 0) for states in (student, teacher))
    squares = (ours - theirs).square().flatten(2).sum(-1)  # [n, L]
    return (squares / real.flatten(2).sum(-1)).sum(-1)


def _direction(vectors: Tensor) -> Tensor:
    vectors = vectors.float()
    square = vectors.square().sum(dim=-1, keepdim=True)
    short = square < _SHORTEST**2
    return vectors.masked_fill(short, 0) * square.masked_fill(short, 1).rsqrt()


def combine(
    label: Tensor,
    distillation: Tensor,
    weight: float,
    weights: Weights | None = None,
    patient: Tensor | None = None,
) -> Tensor | None:
    """(1 - λ)·L_CE + λ_KL·L_KL + λ_PT·L_PT (eq. 3, 11), each a mean over its own instances.

    A term without instances is skipped, never 0/0, and the others then count in full: without labels
    the student learns from the teacher alone, without answers from the labels alone. In full means that
    without labels λ_KL and λ_PT are divided by λ: constant λ_KL become 1, and λ_KL : λ_PT stays.

    Args:
        label: cross-entropies [a].
        distillation: distances to the teachers' predictions [m].
        weight: λ, of the labels' share 1 - λ; also λ_KL, unless `weights` has one for each instance.
        weights: λ_KL [m] and λ_PT [p], made of λ (dynamics/supervision.py).
        patient: patient losses [p], only with `weights`.

    Returns:
        A scalar; None if there is nothing to learn from.

    Raises:
        ValueError: patient losses without weights.
    """
    if patient is not None and weights is None:
        raise ValueError("patient losses need weights; make them with dynamics.supervision.supervise")
    share = weight if len(label) else 1.0
    scale = share / weight if weight else 1.0
    terms = []
    if len(distillation) and weights is None:
        terms.append(share * distillation.mean())
    elif len(distillation) and weights is not None:
        terms.append(scale * (weights.distillation * distillation).mean())
    if patient is not None and weights is not None and len(patient):
        terms.append(scale * (weights.patient * patient).mean())
    if len(label):
        terms.append((1 - weight) * label.mean() if terms else label.mean())
    return reduce(add, terms) if terms else None


def combine_by_row(
    label: Tensor,
    labelled: Tensor,
    distillation: Tensor,
    places: Sequence[int],
    weight: float,
    weights: Weights | None = None,
    patient: Tensor | None = None,
) -> Tensor:
    """The mean over rows of eq. 3 (11) of each: (1 - λ)·L_CE + λ_KL·L_KL + λ_PT·L_PT.

    So a batch's two answers weigh as two rows, and not as much as its thirty labels. A row with a label alone
    counts it in full, one with an answer alone as `combine` does without labels. Where all rows have both,
    or all have answers alone, the two are the same.

    Args:
        label: cross-entropies of the labelled rows [a].
        labelled: which these are of the n rows [n], bool.
        distillation: distances to the teachers' predictions of the answered rows [m], m at least 1.
        places: which these are [m].
        weight: λ.
        weights: λ_KL [m] and λ_PT [m]; with patient losses, else λ_KL is λ.
        patient: patient losses [m].

    Returns:
        A scalar.

    Raises:
        ValueError: patient losses without weights, or weights without patient losses.
    """
    if (patient is None) != (weights is None):
        raise ValueError("patient losses and weights belong together; give both, or none")
    answered = torch.zeros_like(labelled)
    answered[list(places)] = True
    gold = torch.where(answered[labelled], 1 - weight, 1.0) * label
    both = labelled[list(places)]
    lesson = torch.where(both, weight, 1.0) * distillation
    if weights is not None and patient is not None:
        scale = torch.where(both, 1.0, 1 / weight if weight else 1.0)
        lesson = scale * (weights.distillation * distillation + weights.patient * patient)
    return (gold.sum() + lesson.sum()) / (labelled | answered).sum()
