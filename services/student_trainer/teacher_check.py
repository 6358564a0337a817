"""Before the first training question: how good is the teacher itself, on validation rows?"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from student_trainer.config import DistillSettings
from student_trainer.data import Rows, longest
from student_trainer.evaluate import metrics
from student_trainer.teachers.asking import Asking
from teacher_api.messages import Answer
from teacher_api.prices import Tariff

STEP = -1  # its place in the ledger
ENOUGH = 20  # rows, to tell a teacher from chance
FEW = 8  # of one that is right on half of all rows, none of so many is right once in 256 times


@dataclass(frozen=True)
class TeacherCheck:
    """What one teacher said of m validation rows.

    Attributes:
        rows: m; fewer than were asked about where a budget refused some.
        scores: its own, as `evaluate.metrics` has them; empty of no row.
        chance: share of the rows that always guessing their commonest class is right on.
    """

    rows: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    chance: float = 0.0

    @classmethod
    def of(
        cls, answers: Sequence[Answer | None], labels: Sequence[int], order: Sequence[int]
    ) -> "TeacherCheck":
        """Of answers, a label for each, and the teacher's class at each of the task's classes."""
        pairs = [
            (answer.outputs.logits[list(order)], label)
            for answer, label in zip(answers, labels, strict=True)
            if answer and answer.outputs and answer.outputs.logits is not None and label >= 0
        ]
        if not pairs:
            return cls()
        logits, true = (list(column) for column in zip(*pairs, strict=True))
        scores = metrics(torch.from_numpy(np.stack(logits)), torch.tensor(true))
        return cls(len(true), scores, Counter(true).most_common(1)[0][1] / len(true))

    @property
    def warning(self) -> str | None:
        """If it is right no more often than always guessing the commonest class; of few rows, if never."""
        if not self.rows:
            return None
        right, chance = (round(share * self.rows) for share in (self.scores["accuracy"], self.chance))
        if right == self.rows or right > chance or (self.rows < ENOUGH and (right or self.rows < FEW)):
            return None
        return (
            f"the teacher is right on {right} of {self.rows} validation rows, always guessing one class on "
            f"{chance}: are its classes in another order, or is it another task's?"
        )


def check(asking: Asking, teacher: int, validation: Rows, classes: Sequence[int], rows: int) -> TeacherCheck:
    """Asks about evenly spaced rows, for a sorted file must not show one class only.

    Args:
        teacher: its asker's number; `classes` of it, as in `TeacherCheck.of`.
        rows: at most.
    """
    total, labels = len(validation), validation.labels or []
    numbers = sorted({i * total // rows for i in range(rows)}) if rows else []
    instances = [validation.instances[i] for i in numbers]
    # Numbered below the training rows' numbers, so that no row of the ledger is taken for one of them.
    answers = asking.submit(STEP, numbers, instances, teacher).result()
    return TeacherCheck.of(answers, [labels[i] for i in numbers], classes)


def affordable(settings: DistillSettings, validation: Rows, tariffs: Sequence[Tariff]) -> int:
    """Rows to check each teacher by: as many as are wanted, for at most a tenth of a budget: a small one is
    there to learn from."""
    rows = settings.check_rows
    if settings.budget_queries is not None:
        rows = min(rows, settings.budget_queries // (10 * len(tariffs)))
    if settings.budget_usd is not None:
        size, _ = longest(validation.instances)
        dearest = sum(tariff.worst(tariff.units(size)) for tariff in tariffs)
        rows = min(rows, int(settings.budget_usd / 10 / (dearest or settings.budget_usd)))
    return rows
