"""What is asked in a step, and of whom (§3.2, §3.1)."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from student_trainer.config import DistillSettings
from student_trainer.data import Rows
from student_trainer.dynamics.adoption import adopt
from student_trainer.dynamics.selection import generator_for, how_many, random_doubt, select
from student_trainer.dynamics.uncertainty import SCORES, entropy
from student_trainer.insides import Insight
from student_trainer.learner import Learner
from student_trainer.memory import Memory
from student_trainer.objective import Match
from student_trainer.schedule import Batch, Schedule, take
from teacher_api.messages import Answer, Instance

T = TypeVar("T")


class Asks(Protocol):
    """Where questions go: teachers/asking.py, or nowhere."""

    def submit(
        self, step: int, rows: Sequence[int], instances: Sequence[Instance], teacher: int = 0
    ) -> Future[list[Answer | None]]:
        """The answers to come; None where the budget refuses."""

    def kept(self, instances: Sequence[Instance], teacher: int = 0) -> list[Answer | None]:
        """What was answered before, at no charge; None where nothing was."""


class NoTeacher:
    """Answers nothing, at no cost."""

    def submit(
        self, step: int, rows: Sequence[int], instances: Sequence[Instance], teacher: int = 0
    ) -> Future[list[Answer | None]]:
        nothing: Future[list[Answer | None]] = Future()
        nothing.set_result(self.kept(instances))
        return nothing

    def kept(self, instances: Sequence[Instance], teacher: int = 0) -> list[Answer | None]:
        return [None] * len(instances)


@dataclass(frozen=True)
class Question:
    """A step's batch, which instances of it are asked about, of whom, and the answers to come.

    Attributes:
        asked: k positions in the batch, the most doubtful first.
        weights: of each teacher for each of them [k, T]; where it is zero, that teacher is not asked.
        answers: of each teacher, about those of the k that it is asked about.
        ahead: instances, not of this batch, that were asked about and answered before it.
    """

    step: int
    batch: Batch
    asked: list[int]
    weights: Tensor
    answers: list[Future[list[Answer | None]]]
    ahead: int = 0

    @classmethod
    def send(
        cls, step: int, batch: Batch, asked: list[int], weights: Tensor, teachers: Asks, ahead: int = 0
    ) -> "Question":
        """Sends each teacher its own instances: those that have a weight for it."""
        answers = []
        for teacher in range(weights.shape[1]):
            own = batch[[asked[place] for place in asked_of(weights, teacher)]]
            answers.append(teachers.submit(step, own.rows, own.instances, teacher))
        return cls(step, batch, asked, weights, answers, ahead)

    @property
    def rows(self) -> list[int]:
        """Numbers of the rows that are asked about."""
        return [self.batch.rows[position] for position in self.asked]

    def wait(self) -> list[list[Answer | None]]:
        """By instance and teacher, [k][T]: None where the budget refused, or nobody asked."""
        found: list[list[Answer | None]] = [[None] * len(self.answers) for _ in self.asked]
        for teacher, answers in enumerate(self.answers):
            for place, answer in zip(asked_of(self.weights, teacher), answers.result(), strict=True):
                found[place][teacher] = answer
        return found


@dataclass(frozen=True)
class Step:
    """What one step did. `asked` and `answered` count instances, not questions; `waited` is in seconds.
    `kl_weight` is the mean λ_KL of eq. 13 over what was answered; NaN without supervision."""

    number: int
    seen: int
    asked: int
    answered: int
    loss: float
    waited: float
    learning_rate: float
    kl_weight: float = math.nan


@dataclass(frozen=True)
class Distillation:
    """What the loop works with.

    Attributes:
        learner: the student, changed in place.
        rows: the training set.
        teachers: who answers; answers may come back short when a budget is spent.
        settings: the dynamics and the objective.
        matches: how each teacher's outputs meet the student's, the smallest teacher first.
        memory: what was answered before the step that is next.
        insight: what the general stage compares; its teacher comes behind those of the matches.
    """

    learner: Learner
    rows: Rows
    teachers: Asks
    settings: DistillSettings
    matches: Sequence[Match]
    memory: Memory
    insight: Insight | None = None

    @property
    def schedule(self) -> Schedule:
        return Schedule.of(self.rows, self.settings)

    def weights(self, doubt: Tensor) -> Tensor:
        """Of each teacher, by the student's entropy (§3.1): [k] -> [k, T]."""
        return adopt(doubt, len(self.matches), self.settings.adoption, len(self.matches[0].classes))


def batch_by_batch(work: Distillation, start: int) -> Iterator[Question]:
    """The paper's scheme: a share of each batch; with replay, of what is not answered yet."""
    settings, schedule = work.settings, work.schedule

    def ask(step: int) -> Question:
        batch = take(work.rows, schedule.rows_of(step))
        strategy = strategy_of(settings, (step - schedule.general) / schedule.steps)
        candidates = torch.arange(len(batch))
        if settings.replay:
            candidates = candidates[~work.memory.known(batch.rows)]
        chosen, doubt = choose(batch[candidates.tolist()], len(batch), step, work.learner, settings, strategy)
        asked = candidates[chosen].tolist()
        return Question.send(step, batch, asked, work.weights(doubt), work.teachers)

    questions = map(ask, range(start, schedule.total))
    # Questions that depend on nothing learnt or told are sent while the step before them is learnt.
    return questions if settings.student_decides or settings.replay else one_ahead(questions)


def strategy_of(settings: DistillSettings, progress: float) -> str:
    """Random, or coverage, in the first share of a run with a warm start: early doubt is mostly noise."""
    warm = settings.warm_start != "none" and progress < settings.warm_share
    return settings.warm_start if warm else settings.strategy


def choose(
    batch: Batch, seen: int, step: int, learner: Learner, settings: DistillSettings, strategy: str
) -> tuple[Tensor, Tensor]:
    """Positions to ask about (§3.2), the most doubtful first, and the entropy of each: two of [k].

    One score pass serves both: each selection strategy reads its own score, adoption always the entropy
    (eq. 5, 6). Where neither looks at the student there is no pass, and the entropy means nothing.

    Args:
        batch: what may be asked about.
        seen: N, of which the ratio is; all of a batch, also where only a part may be asked about.
        step: of the run.
        learner: the student.
        settings: ratio, rounding, dropout.
        strategy: of this step.
    """
    n = len(batch)
    logits = torch.zeros(n, 2)
    if n and (strategy in SCORES or settings.adopts_by_doubt):
        logits = learner.scores(batch.instances, dropout=settings.score_dropout).cpu()
    if strategy == "all":
        return torch.arange(n), entropy(logits)
    doubt = doubt_of(strategy, logits, settings.seed, step)
    positions = select(doubt, how_many(seen, settings.batch_ratio, settings.rounding, step))
    return positions, entropy(logits)[positions]


def doubt_of(strategy: str, logits: Tensor, seed: int, step: int) -> Tensor:
    """What is selected by: [n, C] -> [n]."""
    if strategy == "random":
        return random_doubt(len(logits), generator_for(seed, step))
    return SCORES[strategy](logits)


def asked_of(weights: Tensor, teacher: int) -> list[int]:
    """Which of the asked instances one teacher is asked about."""
    return weights[:, teacher].nonzero().flatten().tolist()


def refused(answers: Sequence[Sequence[Answer | None]], weights: Tensor) -> bool:
    """Whether any of the questions, [k][T], has no answer."""
    return sum(answer is not None for row in answers for answer in row) < int(weights.count_nonzero())


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each given only after the next one has been started."""
    current = next(items, None)
    while current is not None:
        following = next(items, None)
        yield current
        current = following
