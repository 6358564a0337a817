"""Which teacher teaches which instance, and with what weight (§3.1): doubt is the student's entropy.

The more a student doubts, the smaller the teacher it learns from: a large teacher's sharp predictions
help once the student is nearly sure. Teachers are ordered by size, the smallest in column 0.
"""

from typing import Literal

import torch
from torch import Tensor

from student_trainer.dynamics.uncertainty import normalised

Adoption = Literal["single", "ensemble", "hard", "soft", "soft-batch"]


def adopt(doubt: Tensor, teachers: int, adoption: Adoption, classes: int) -> Tensor:
    """Weight of each teacher's loss for each instance: [n] -> [n, T], float32, without gradient.

    Rows sum to one. A weight of exactly zero means that this teacher need not be asked.

    Args:
        doubt: entropy of the student's predictions, in nats (eq. 5). `single` and `ensemble` read only
            its length.
        teachers: T.
        adoption: `single`, the one teacher there is; `ensemble`, all alike; `hard`, one each, by its rank
            in the batch; `soft`, eq. 4-6 for each instance; `soft-batch`, eq. 6 with the mean u/U of the
            batch for all of it, as the released code has it.
        classes: C; doubt is at most U = ln C.

    Raises:
        ValueError: fewer than two classes, `single` without exactly one teacher, another with fewer than two.
    """
    _check(teachers, adoption)
    share = normalised(doubt, classes)
    match adoption:
        case "single" | "ensemble":
            return share.new_full((len(share), teachers), 1 / teachers)
        case "hard":
            return _quantiles(doubt.detach(), teachers)
        case "soft":
            return _interpolated(share, teachers)
        case "soft-batch":
            return _interpolated(share.mean().expand_as(share), teachers)


def _check(teachers: int, adoption: Adoption) -> None:
    if adoption == "single" and teachers != 1:
        raise ValueError(
            f"adoption: 'single' asks one teacher, not {teachers}; "
            "name one teacher, or choose ensemble, hard, soft or soft-batch"
        )
    if adoption != "single" and teachers < 2:
        raise ValueError(
            f"adoption: {adoption!r} chooses among two teachers or more, not {teachers}; "
            "name another teacher, or choose single"
        )


def _quantiles(doubt: Tensor, teachers: int) -> Tensor:
    """As many parts as teachers, the most doubtful part for the smallest; one teacher each. -> [n, T].

    What does not divide goes to the larger teachers, so a part may be empty: of one instance only the
    largest is asked. Equal doubts keep the order of the batch.
    """
    n = len(doubt)
    sizes = torch.tensor([(n + t) // teachers for t in range(teachers)], device=doubt.device)
    teacher = torch.arange(teachers, device=doubt.device).repeat_interleave(sizes)  # of each rank
    weights = torch.zeros(n, teachers, device=doubt.device)
    weights[doubt.argsort(descending=True, stable=True), teacher] = 1
    return weights


def _interpolated(share: Tensor, teachers: int) -> Tensor:
    """Eq. 6 between neighbours: u/U from 0 to 1 walks from the largest teacher to the smallest. -> [n, T].

    Teachers stand at equal distances on that line, and an instance between two of them gets eq. 6 of these
    two. For T = 2 that is the paper's formula; for more, an instance still costs two questions at most,
    where weights for all would cost T, and certainty and full doubt still mean the largest and the smallest.
    """
    place = share * (teachers - 1)
    passed = place.floor().clamp(max=teachers - 2)  # teachers larger than both neighbours
    larger = teachers - 1 - passed.long()
    towards_smaller = place - passed
    weights = torch.zeros(len(share), teachers, device=share.device)
    weights.scatter_(1, (larger - 1)[:, None], towards_smaller[:, None])
    return weights.scatter_(1, larger[:, None], (1 - towards_smaller)[:, None])
