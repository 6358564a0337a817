"""How much each objective counts for each instance (§3.3): predictions where sure, features where not."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from student_trainer.dynamics.uncertainty import normalised

Supervision = Literal["none", "static", "dynamic"]


class Weights(NamedTuple):
    """λ_KL and λ_PT of eq. 11, one of each per instance: [n], float32, without gradient."""

    distillation: Tensor
    patient: Tensor


def supervise(
    doubt: Tensor, classes: int, supervision: Supervision, kd_weight: float, patient_weight: float
) -> Weights:
    """The weights of one batch: [n] -> two of [n].

    Args:
        doubt: entropy of the student's predictions, in nats; only `dynamic` reads more than its length.
        classes: C; doubt is at most U = ln C.
        supervision: `none`, no patient loss; `static`, the same weights for all (BERT-PKD); `dynamic`,
            eq. 13: λ_KL = λ*_KL(1 - u/U), λ_PT = λ*_PT·u/U.
        kd_weight: λ*_KL.
        patient_weight: λ*_PT.

    Raises:
        ValueError: fewer than two classes.
    """
    share = normalised(doubt, classes)
    match supervision:
        case "none":
            return Weights(torch.full_like(share, kd_weight), torch.zeros_like(share))
        case "static":
            return Weights(torch.full_like(share, kd_weight), torch.full_like(share, patient_weight))
        case "dynamic":
            return Weights(kd_weight * (1 - share), patient_weight * share)
