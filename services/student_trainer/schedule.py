"""Which rows each step sees, and the rows themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from student_trainer.config import TrainingSettings
from student_trainer.data import Rows, order
from teacher_api.messages import Instance


@dataclass(frozen=True)
class Schedule:
    """Which rows each step sees: a function of the seed and the step alone, so a run resumes anywhere."""

    rows: int
    batch_size: int
    epochs: float
    seed: int

    @classmethod
    def of(cls, rows: Rows, settings: TrainingSettings) -> "Schedule":
        return cls(len(rows), settings.batch_size, settings.epochs, settings.seed)

    @property
    def steps_an_epoch(self) -> int:
        return -(-self.rows // self.batch_size)

    @property
    def total(self) -> int:
        """Steps of the whole run, one at the least."""
        return max(1, round(self.steps_an_epoch * self.epochs))

    def rows_of(self, step: int) -> list[int]:
        epoch, position = divmod(step, self.steps_an_epoch)
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
