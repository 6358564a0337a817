"""What the student is asked to minimise (eq. 1-3): one value for each instance, averaged by `combine`.

Teachers send logits at temperature 1; softening both sides, and the factor τ² that keeps the gradient's
size (Hinton et al., 2015), happen here and nowhere else. All of it in float32.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Divergence = Literal["kl", "reverse-kl", "mse"]


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


def combine(label: Tensor, distillation: Tensor, weight: float) -> Tensor | None:
    """(1 - λ)·L_CE + λ·L_KL (eq. 3), each a mean over its own instances. [n], [m] -> scalar or None.

    A term without instances is skipped, never 0/0, and the other then counts in full: without labels
    the student learns from the teacher alone, without answers from the labels alone.
    """
    means = [losses.mean() for losses in (label, distillation) if len(losses)]
    if len(means) == 2:
        return (1 - weight) * means[0] + weight * means[1]
    return means[0] if means else None
