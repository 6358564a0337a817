"""Which rows each step sees, and the rows themselves."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from student_trainer.config import TrainingSettings
from student_trainer.data import Rows, order
from teacher_api.messages import Instance


@dataclass(frozen=True)
class Schedule:
    """Which rows each step sees: a function of the seed and the step alone, so a run resumes anywhere.

    The general stage, if there is one, comes first; its steps count with all others.
    """

    rows: int
    batch_size: int
    epochs: float
    seed: int
    general_epochs: float = 0

    @classmethod
    def of(cls, rows: Rows, settings: TrainingSettings) -> "Schedule":
        general = getattr(settings, "general_epochs", 0)
        return cls(len(rows), settings.batch_size, settings.epochs, settings.seed, general)

    @property
    def steps_an_epoch(self) -> int:
        return -(-self.rows // self.batch_size)

    @property
    def general(self) -> int:
        """Steps of the general stage: the number of the first step behind it."""
        return math.ceil(self.steps_an_epoch * self.general_epochs)

    @property
    def steps(self) -> int:
        """Steps behind the general stage, one at the least."""
        return max(1, round(self.steps_an_epoch * self.epochs))

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.general + self.steps

    def seen(self, steps: Iterable[int]) -> int:
        """Instances that pass through these steps."""
        return sum(len(self.rows_of(step)) for step in steps)

    def rows_of(self, step: int) -> list[int]:
        """Their numbers. Each stage has orders of its own."""
        if step < self.general:
            epoch, position = divmod(step, self.steps_an_epoch)
            epoch = -1 - epoch
        else:
            epoch, position = divmod(step - self.general, self.steps_an_epoch)
        start = position * self.batch_size
        return _order(self.rows, self.seed, epoch)[start : start + self.batch_size]


@dataclass(frozen=True)
class Batch:
    """Rows of the training set: their numbers, what is classified, and gold labels (-1: none)."""

    rows: list[int]
    instances: list[Instance]
    labels: Tensor  # [n]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, positions: Sequence[int]) -> "Batch":
        chosen = list(positions)
        return Batch([self.rows[i] for i in chosen], [self.instances[i] for i in chosen], self.labels[chosen])


def take(rows: Rows, numbers: list[int]) -> Batch:
    labels = [-1] * len(numbers) if rows.labels is None else [rows.labels[i] for i in numbers]
    return Batch(numbers, [rows.instances[i] for i in numbers], torch.tensor(labels, dtype=torch.long))


@lru_cache(maxsize=2)
def _order(rows: int, seed: int, epoch: int) -> list[int]:
    return order(rows, seed, epoch)
