"""Asking in rounds: choosing over all that is not answered yet, instead of within each batch.

Each round spends its part of the questions at once; every later batch learns from all that is known.
The same instance is never chosen twice, so the asked are the charged.
"""

from collections.abc import Iterator

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans  # type: ignore[import-untyped]
from torch import Tensor

from student_trainer.dynamics.calibration import fitting_temperature
from student_trainer.dynamics.selection import generator_for, how_many, select
from student_trainer.dynamics.uncertainty import SCORES, entropy
from student_trainer.objective import Lessons
from student_trainer.questions import Distillation, Question, doubt_of, refused, strategy_of
from student_trainer.schedule import Batch, Schedule, take


def in_rounds(work: Distillation, start: int) -> Iterator[Question]:
    """Batches that ask nothing; before the first step of a round, its questions are asked and answered.

    Ends before a round that the budget cannot pay whole, if it is to stop the run.
    """
    schedule = work.schedule
    starts = starts_of(work.settings.rounds, schedule)
    nobody = torch.zeros(0, len(work.matches))
    for step in range(start, schedule.total):
        told = 0
        for number in (number for number, first in enumerate(starts) if first == step):
            chosen, logits = choose_round(work, number, step)
            told = ask_round(work, step, take(work.rows, chosen), logits)
            if told < len(chosen) and work.settings.when_spent == "stop":
                return
        yield Question(step, take(work.rows, schedule.rows_of(step)), [], nobody, [], told)


def starts_of(rounds: int, schedule: Schedule) -> list[int]:
    """The first step of each round: evenly over the first epoch, so that most of a run knows all."""
    span = min(schedule.steps_an_epoch, schedule.steps)
    return [schedule.general + number * span // rounds for number in range(rounds)]


def choose_round(work: Distillation, number: int, step: int) -> tuple[list[int], Tensor]:
    """Row numbers to ask about, the most doubtful first, and the student's logits [k, C], zero where nobody
    looks at them.

    Doubt is looked for among at most `pool` rows, drawn anew from those without an answer.
    """
    settings = work.settings
    total = how_many(len(work.rows), settings.ratio, settings.rounding)
    k = total * (number + 1) // settings.rounds - total * number // settings.rounds
    if not k:  # more rounds than questions: nobody looks at a pool for nothing
        return [], torch.zeros(0, 2)
    unknown = (~work.memory.known()).nonzero().flatten()
    drawn = torch.randperm(len(unknown), generator=generator_for(settings.seed, step))[: settings.pool]
    pool = unknown[drawn.sort().values]
    instances = [work.rows.instances[row] for row in pool.tolist()]
    strategy = strategy_of(settings, number / settings.rounds)
    logits = torch.zeros(len(pool), 2)
    if strategy in SCORES or settings.adopts_by_doubt:
        logits = work.learner.survey(instances) / work.memory.temperature
    if strategy == "coverage":
        places = covering(work.learner.vectors(instances), k, settings.seed)
    else:
        places = select(doubt_of(strategy, logits, settings.seed, step), k)
    return pool[places].tolist(), logits[places]


def ask_round(work: Distillation, step: int, batch: Batch, logits: Tensor) -> int:
    """Asks, waits, and remembers what came; how many instances have all of their answers."""
    weights = work.weights(entropy(logits))
    question = Question.send(step, batch, list(range(len(batch))), weights, work.teachers)
    answers = question.wait()
    came = [place for place, row in enumerate(answers) if any(row)]
    work.memory.remember([batch.rows[place] for place in came], weights[came])
    if came and work.settings.calibrated and logits.any():
        lessons = Lessons.of([answers[place] for place in came], weights[came], work.matches)
        work.memory.temperature *= fitting_temperature(logits[came], lessons.targets)
    return sum(not refused([row], weights[[place]]) for place, row in enumerate(answers))


def covering(vectors: Tensor, k: int, seed: int) -> Tensor:
    """Positions of k rows that stand for all: the nearest to each of k centres (k-means). [n, h] -> [k]."""
    if k >= len(vectors):
        return torch.arange(len(vectors))
    points = vectors.numpy()
    means = MiniBatchKMeans(k, random_state=seed, n_init=1, batch_size=max(1024, 3 * k)).fit(points)
    taken = np.zeros(len(points), bool)
    for centre in means.cluster_centers_:
        distance = np.square(points - centre).sum(1)
        taken[np.where(taken, np.inf, distance).argmin()] = True
    return torch.from_numpy(taken.nonzero()[0])
