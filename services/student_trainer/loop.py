"""The distillation loop, as the paper's algorithm reads. It does no I/O but through what it is given.

A training run without a teacher is the same loop with a teacher that is never there (`NoTeacher`).
"""

from collections.abc import Callable, Iterator, Sequence
from time import perf_counter

import torch

from student_trainer.dynamics.selection import generator_for
from student_trainer.general import in_general, learn_insides
from student_trainer.memory import Memory
from student_trainer.objective import Lessons, Predictions, kl_weight, objective
from student_trainer.questions import Asks, Distillation, Question, Step, batch_by_batch, refused
from student_trainer.rounds import in_rounds
from student_trainer.schedule import Batch, take
from teacher_api.messages import Answer

NOTHING = Predictions(torch.empty(0, 2), {})  # of no row


Answers = Sequence[list[Answer | None]]  # by instance and teacher
Watch = Callable[[Step, int], None]  # told of each step, and how many are planned


def distil(work: Distillation, start: int = 0) -> Iterator[Step]:
    """Trains the student step by step from `start`, giving each step's account as it is done.

    Where a spent budget stops the run, it ends before the first step that it cannot pay whole: that step
    and all after it are then done on resume, as if the larger budget had been there from the start.
    """
    for question in asked(work, start):
        step = learn(work, question)
        if step is None:
            return
        yield step


def asked(work: Distillation, start: int) -> Iterator[Question]:
    """The general stage, if there is one; then the paper's scheme, or rounds."""
    yield from in_general(work, start)
    start = max(start, work.schedule.general)
    yield from in_rounds(work, start) if work.settings.pool else batch_by_batch(work, start)


def learn(work: Distillation, question: Question) -> Step | None:
    """One step: the student's forward runs while the answers are on the wire, then eq. 3 and the update.

    None, and nothing learnt, if the budget has refused a part of it and is to stop the run.
    """
    if question.step < work.schedule.general:
        return learn_insides(work, question)
    learner, settings = work.learner, work.settings
    batch, taught = learnt(work, question)
    student = predicted(work, batch)
    began = perf_counter()
    answers = question.wait()
    waited = perf_counter() - began
    if settings.teacher and settings.when_spent == "stop" and refused(answers, question.weights):
        return None
    lessons, came = told(work, question, batch[taught], answers)
    places = [taught[place] for place in came]
    projections = learner.projections[: len(work.matches)]  # behind them: the general stage's
    loss = objective(student, batch.labels, places, lessons, settings, work.matches, projections)
    rate = learner.learning_rate
    learner.update(loss)
    return Step(
        number=question.step,
        seen=len(question.batch.rows),
        asked=len(question.asked) + question.ahead,
        answered=sum(map(any, answers)) + question.ahead,
        loss=float("nan") if loss is None else loss.item(),
        waited=waited,
        learning_rate=rate,
        kl_weight=kl_weight(student, places, settings),
    )


def learnt(work: Distillation, question: Question) -> tuple[Batch, list[int]]:
    """The rows that are learnt from, and the positions in them of those that a teacher speaks about: the
    asked first, then what is replayed.

    With labels on all, these are the batch. Otherwise only what is taught has anything to teach (of
    unlabelled rows that is so whatever `label_loss` says): the asked, and a batch filled up with known rows.
    """
    settings, batch = work.settings, question.batch
    if settings.label_loss == "all" and bool((batch.labels >= 0).any()):
        return batch, [*question.asked, *(known(question, work.memory) if settings.replay else ())]
    taught = (
        take(work.rows, [*question.rows, *drawn(work, question)])
        if settings.replay
        else batch[question.asked]
    )
    return taught, list(range(len(taught)))


def predicted(work: Distillation, batch: Batch) -> Predictions:
    """The student's, and its states in the layers that are matched."""
    layers = sorted({layer for match in work.matches for _, layer in match.layers})
    return work.learner.predictions(batch.instances, layers, work.settings.pooling) if batch.rows else NOTHING


def told(
    work: Distillation, question: Question, batch: Batch, answers: Answers
) -> tuple[Lessons | None, list[int]]:
    """What is to be learnt about these rows, and the places of those of which anything is known.

    The asked come first, and what came of them is remembered; the others are recalled.
    """
    memory, count = work.memory, len(question.asked)
    again = batch[range(count, len(batch))]
    weights = torch.cat([question.weights, memory.weights[again.rows]])
    answers = [*answers, *recalled(again, work.teachers, len(work.matches))]
    came = [place for place, row in enumerate(answers) if any(row)]
    new = [place for place in came if place < count]
    memory.remember([question.rows[place] for place in new], question.weights[new])
    memory.learnt([batch.rows[place] for place in came])
    return Lessons.of([answers[place] for place in came], weights[came], work.matches) if came else None, came


def known(question: Question, memory: Memory) -> list[int]:
    """Positions in the batch that were answered about in an earlier step, and are not asked about now."""
    before = memory.known(question.batch.rows).nonzero().flatten().tolist()
    return [position for position in before if position not in set(question.asked)]


def drawn(work: Distillation, question: Question) -> list[int]:
    """As many known rows as a batch still holds."""
    lots = generator_for(work.settings.seed, question.step)
    return work.memory.next(work.settings.batch_size - len(question.asked), lots)


def recalled(batch: Batch, teachers: Asks, number: int) -> list[list[Answer | None]]:
    """What each teacher said about each instance, [m][T]."""
    columns = [teachers.kept(batch.instances, teacher) for teacher in range(number)]
    return [list(row) for row in zip(*columns, strict=True)]
