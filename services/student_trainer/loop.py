"""The distillation loop, as the paper's algorithm reads. It does no I/O but through what it is given.

A training run without a teacher is the same loop with a teacher that is never there (`NoTeacher`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from student_trainer.config import DistillSettings
from student_trainer.data import Rows, order
from student_trainer.dynamics.selection import generator_for, how_many, random_doubt, select
from student_trainer.dynamics.uncertainty import SCORES
from student_trainer.learner import Learner
from student_trainer.losses import combine, distillation_loss, label_loss
from teacher_api.messages import Answer, Instance

T = TypeVar("T")


class Asks(Protocol):
    """Where questions go: teachers/asking.py, or nowhere."""

    def submit(
        self, step: int, rows: Sequence[int], instances: Sequence[Instance]
    ) -> Future[list[Answer | None]]: ...


class NoTeacher:
    """Answers nothing, at no cost."""

    def submit(
        self, step: int, rows: Sequence[int], instances: Sequence[Instance]
    ) -> Future[list[Answer | None]]:
        nothing: Future[list[Answer | None]] = Future()
        nothing.set_result([None] * len(instances))
        return nothing


@dataclass(frozen=True)
class Schedule:
    """Which rows each step sees: a function of the seed and the step alone, so a run resumes anywhere."""

    rows: int
    batch_size: int
    epochs: float
    seed: int

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

    def __getitem__(self, positions: Sequence[int]) -> "Batch":
        chosen = list(positions)
        return Batch([self.rows[i] for i in chosen], [self.instances[i] for i in chosen], self.labels[chosen])


@dataclass(frozen=True)
class Question:
    """A step's batch, the positions in it that were asked about, and the answers to come."""

    step: int
    batch: Batch
    asked: list[int]
    answers: Future[list[Answer | None]]


@dataclass(frozen=True)
class Step:
    """What one step did. `waited` is in seconds; `doubt` the mean over the batch, NaN if not scored."""

    number: int
    seen: int
    asked: int
    answered: int
    loss: float
    waited: float
    learning_rate: float


Watch = Callable[[Step, int], None]  # told of each step, and how many are planned


def distil(
    learner: Learner,
    rows: Rows,
    teacher: Asks,
    settings: DistillSettings,
    permutation: Sequence[int],
    start: int = 0,
) -> Iterator[Step]:
    """Trains the student step by step from `start`, giving each step's account as it is done.

    Where a spent budget stops the run, it ends before the first step that it cannot pay whole: that step
    and all after it are then done on resume, as if the larger budget had been there from the start.

    Args:
        learner: the student, changed in place.
        rows: the training set.
        teacher: who answers; answers may come back short when a budget is spent.
        settings: the dynamics and the objective.
        permutation: the teacher's class at each of the student's classes.
        start: the first step to do, for a run that resumes.
    """
    schedule = Schedule(len(rows), settings.batch_size, settings.epochs, settings.seed)

    def ask(step: int) -> Question:
        batch = take(rows, schedule.rows_of(step))
        asked = choose(batch, step, learner, settings)
        chosen = batch[asked]
        return Question(step, batch, asked, teacher.submit(step, chosen.rows, chosen.instances))

    questions = map(ask, range(start, schedule.total))
    # A choice that does not wait for the student is made, and sent, while the step before it is learnt.
    for question in questions if settings.strategy in SCORES else one_ahead(questions):
        step = learn(learner, question, settings, permutation)
        if step is None:
            return
        yield step


def choose(batch: Batch, step: int, learner: Learner, settings: DistillSettings) -> list[int]:
    """Positions in the batch to ask about, the most doubtful first (§3.2)."""
    n = len(batch.rows)
    if settings.strategy == "all":
        return list(range(n))
    if settings.strategy == "random":
        doubt = random_doubt(n, generator_for(settings.seed, step))
    else:
        scores = learner.scores(batch.instances, dropout=settings.score_dropout)
        doubt = SCORES[settings.strategy](scores)
    return select(doubt, how_many(n, settings.ratio, settings.rounding)).tolist()


def learn(
    learner: Learner, question: Question, settings: DistillSettings, permutation: Sequence[int]
) -> Step | None:
    """One step: the student's forward runs while the answers are on the wire, then eq. 3 and the update.

    None, and nothing learnt, if the budget has refused a part of it and is to stop the run.
    """
    batch, positions = learnt(question, settings)
    logits = learner.logits(batch.instances) if batch.rows else torch.empty(0, len(permutation))
    began = perf_counter()
    answers = question.answers.result()
    waited = perf_counter() - began
    if settings.teacher is not None and settings.when_spent == "stop" and None in answers:
        return None
    answered = {place: answer for place, answer in zip(positions, answers, strict=True) if answer}
    loss = objective(logits, batch.labels, answered, settings, permutation)
    rate = learner.learning_rate
    learner.update(loss)
    value = float("nan") if loss is None else loss.item()
    seen, asked = len(question.batch.rows), len(question.asked)
    return Step(question.step, seen, asked, len(answered), value, waited, rate)


def learnt(question: Question, settings: DistillSettings) -> tuple[Batch, list[int]]:
    """The rows that are learnt from, and the places of the asked among them.

    Of an unlabelled batch only the asked have anything to teach, whatever `label_loss` says.
    """
    if settings.label_loss == "all" and bool((question.batch.labels >= 0).any()):
        return question.batch, question.asked
    return question.batch[question.asked], list(range(len(question.asked)))


def objective(
    logits: Tensor,
    labels: Tensor,
    answered: Mapping[int, Answer],
    settings: DistillSettings,
    permutation: Sequence[int],
) -> Tensor | None:
    """Eq. 3 over the rows with labels and the rows with answers: logits [n, C], labels [n], row -> answer."""
    teacher = teacher_logits(list(answered.values()), permutation).to(logits.device)
    distance = distillation_loss(logits[list(answered)], teacher, settings.temperature, settings.divergence)
    return combine(label_loss(logits, labels.to(logits.device)), distance, settings.kd_weight)


def teacher_logits(answers: Sequence[Answer], permutation: Sequence[int]) -> Tensor:
    """Answers in the order of the student's classes: [m, C]."""
    rows = [answer.outputs.logits for answer in answers if answer.outputs]
    if not rows:
        return torch.empty(0, len(permutation))
    return torch.from_numpy(np.stack(rows)[:, list(permutation)])  # type: ignore[arg-type]


def take(rows: Rows, numbers: list[int]) -> Batch:
    labels = [-1] * len(numbers) if rows.labels is None else [rows.labels[i] for i in numbers]
    return Batch(numbers, [rows.instances[i] for i in numbers], torch.tensor(labels))


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each given only after the next one has been started."""
    current = next(items, None)
    while current is not None:
        following = next(items, None)
        yield current
        current = following


@lru_cache(maxsize=2)
def _order(rows: int, seed: int, epoch: int) -> list[int]:
    return order(rows, seed, epoch)
