"""The distillation loop, as the paper's algorithm reads. It does no I/O but through what it is given.

A training run without a teacher is the same loop with a teacher that is never there (`NoTeacher`).
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from student_trainer.config import DistillSettings
from student_trainer.data import Rows, order
from student_trainer.dynamics.adoption import adopt
from student_trainer.dynamics.selection import generator_for, how_many, random_doubt, select
from student_trainer.dynamics.uncertainty import SCORES, entropy
from student_trainer.learner import Learner
from student_trainer.objective import Lessons, Match, Predictions, objective
from teacher_api.messages import Answer, Instance

T = TypeVar("T")
NOTHING = Predictions(torch.empty(0, 2), {})  # of no row


class Asks(Protocol):
    """Where questions go: teachers/asking.py, or nowhere."""

    def submit(
        self, step: int, rows: Sequence[int], instances: Sequence[Instance], teacher: int = 0
    ) -> Future[list[Answer | None]]: ...


class NoTeacher:
    """Answers nothing, at no cost."""

    def submit(
        self, step: int, rows: Sequence[int], instances: Sequence[Instance], teacher: int = 0
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
    """A step's batch, which instances of it are asked about, of whom, and the answers to come.

    Attributes:
        asked: k positions in the batch, the most doubtful first.
        weights: of each teacher for each of them [k, T]; where it is zero, that teacher is not asked.
        answers: of each teacher, about those of the k that it is asked about.
    """

    step: int
    batch: Batch
    asked: list[int]
    weights: Tensor
    answers: list[Future[list[Answer | None]]]

    def wait(self) -> list[list[Answer | None]]:
        """By instance and teacher, [k][T]: None where the budget refused, or nobody asked."""
        found: list[list[Answer | None]] = [[None] * len(self.answers) for _ in self.asked]
        for teacher, answers in enumerate(self.answers):
            for place, answer in zip(asked_of(self.weights, teacher), answers.result(), strict=True):
                found[place][teacher] = answer
        return found


@dataclass(frozen=True)
class Step:
    """What one step did. `asked` and `answered` count instances, not questions; `waited` is in seconds."""

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
    teachers: Asks,
    settings: DistillSettings,
    matches: Sequence[Match],
    start: int = 0,
) -> Iterator[Step]:
    """Trains the student step by step from `start`, giving each step's account as it is done.

    Where a spent budget stops the run, it ends before the first step that it cannot pay whole: that step
    and all after it are then done on resume, as if the larger budget had been there from the start.

    Args:
        learner: the student, changed in place.
        rows: the training set.
        teachers: who answers; answers may come back short when a budget is spent.
        settings: the dynamics and the objective.
        matches: how each teacher's outputs meet the student's, the smallest teacher first.
        start: the first step to do, for a run that resumes.
    """
    schedule = Schedule(len(rows), settings.batch_size, settings.epochs, settings.seed)

    def ask(step: int) -> Question:
        batch = take(rows, schedule.rows_of(step))
        asked, doubt = choose(batch, step, learner, settings)
        weights = adopt(doubt, len(matches), settings.adoption, len(matches[0].classes))
        return Question(step, batch, asked, weights, submit(step, batch[asked], weights, teachers))

    questions = map(ask, range(start, schedule.total))
    # Questions that do not depend on the student are sent while the step before them is learnt.
    for question in questions if settings.student_decides else one_ahead(questions):
        step = learn(learner, question, settings, matches)
        if step is None:
            return
        yield step


def choose(batch: Batch, step: int, learner: Learner, settings: DistillSettings) -> tuple[list[int], Tensor]:
    """Positions in the batch to ask about (§3.2), the most doubtful first, and the entropy of each.

    One score pass serves both: each selection strategy reads its own score, adoption always the entropy
    (eq. 5, 6). Where neither looks at the student there is no pass, and the entropy means nothing.
    """
    logits = torch.zeros(len(batch.rows), 2)
    if settings.student_decides:
        logits = learner.scores(batch.instances, dropout=settings.score_dropout).cpu()
    positions = selected(logits, step, settings)
    return positions.tolist(), entropy(logits)[positions]


def selected(logits: Tensor, step: int, settings: DistillSettings) -> Tensor:
    """[n, C] -> the positions to ask about, [k]."""
    n = len(logits)
    if settings.strategy == "all":
        return torch.arange(n)
    if settings.strategy == "random":
        doubt = random_doubt(n, generator_for(settings.seed, step))
    else:
        doubt = SCORES[settings.strategy](logits)
    return select(doubt, how_many(n, settings.ratio, settings.rounding))


def submit(step: int, asked: Batch, weights: Tensor, teachers: Asks) -> list[Future[list[Answer | None]]]:
    """Sends each teacher its own instances: those that have a weight for it (§3.1)."""
    answers = []
    for teacher in range(weights.shape[1]):
        own = asked[asked_of(weights, teacher)]
        answers.append(teachers.submit(step, own.rows, own.instances, teacher))
    return answers


def asked_of(weights: Tensor, teacher: int) -> list[int]:
    """Which of the asked instances one teacher is asked about."""
    return weights[:, teacher].nonzero().flatten().tolist()


def learn(
    learner: Learner, question: Question, settings: DistillSettings, matches: Sequence[Match]
) -> Step | None:
    """One step: the student's forward runs while the answers are on the wire, then eq. 3 and the update.

    None, and nothing learnt, if the budget has refused a part of it and is to stop the run.
    """
    batch, positions = learnt(question, settings)
    layers = sorted({layer for match in matches for _, layer in match.layers})
    student = learner.predictions(batch.instances, layers, settings.pooling) if batch.rows else NOTHING
    began = perf_counter()
    answers = question.wait()
    waited = perf_counter() - began
    if settings.teacher and settings.when_spent == "stop" and refused(answers, question.weights):
        return None
    came = [place for place, row in enumerate(answers) if any(row)]
    lessons = Lessons.of([answers[i] for i in came], question.weights[came], matches) if came else None
    places = [positions[place] for place in came]
    loss = objective(student, batch.labels, places, lessons, settings, matches, learner.projections)
    rate = learner.learning_rate
    learner.update(loss)
    value = float("nan") if loss is None else loss.item()
    seen, asked = len(question.batch.rows), len(question.asked)
    return Step(question.step, seen, asked, len(came), value, waited, rate)


def refused(answers: Sequence[Sequence[Answer | None]], weights: Tensor) -> bool:
    """Whether any of the questions has no answer."""
    return sum(answer is not None for row in answers for answer in row) < int(weights.count_nonzero())


def learnt(question: Question, settings: DistillSettings) -> tuple[Batch, list[int]]:
    """The rows that are learnt from, and the places of the asked among them.

    Of an unlabelled batch only the asked have anything to teach, whatever `label_loss` says.
    """
    if settings.label_loss == "all" and bool((question.batch.labels >= 0).any()):
        return question.batch, question.asked
    return question.batch[question.asked], list(range(len(question.asked)))


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
