"""The steps of the general stage: what they ask, and how one is learnt from (insides.py)."""

from collections.abc import Iterator
from time import perf_counter

import torch

from student_trainer.config import DistillSettings
from student_trainer.dynamics.selection import generator_for, how_many, random_doubt, select
from student_trainer.insides import Insides, insides_loss
from student_trainer.questions import Distillation, Question, Step, one_ahead
from student_trainer.schedule import Schedule, take


def asked_at(step: int, settings: DistillSettings, schedule: Schedule) -> int:
    """How many instances a step of the stage asks about."""
    return how_many(len(schedule.rows_of(step)), settings.general_ratio, settings.rounding, step)


def in_general(work: Distillation, start: int) -> Iterator[Question]:
    """A share of each batch, chosen at random; nothing that is asked depends on what is learnt."""
    settings, schedule, teacher = work.settings, work.schedule, len(work.matches)

    def ask(step: int) -> Question:
        batch = take(work.rows, schedule.rows_of(step))
        k = asked_at(step, settings, schedule)
        asked = select(random_doubt(len(batch), generator_for(settings.seed, step)), k).tolist()
        own = batch[asked]
        answers = work.teachers.submit(step, own.rows, own.instances, teacher)
        return Question(step, batch, asked, torch.ones(len(asked), 1), [answers])

    return one_ahead(map(ask, range(start, schedule.general)))


def learn_insides(work: Distillation, question: Question) -> Step | None:
    """As `loop.learn`, but for what is learnt."""
    learner, settings, insight = work.learner, work.settings, work.insight
    assert insight is not None
    student = learner.insides(question.batch[question.asked].instances, insight)
    began = perf_counter()
    answers = [answer for (answer,) in question.wait()]
    waited = perf_counter() - began
    if settings.when_spent == "stop" and None in answers:
        return None
    came = [place for place, answer in enumerate(answers) if answer]
    outputs = [answer.outputs for answer in answers if answer and answer.outputs]
    loss = None
    if came:
        ours = student[came]
        teacher = Insides.of(outputs, insight, ours.mask.sum(1).tolist()).to(ours.states.device)
        ours = ours.cut(teacher.mask.shape[1])  # the longest of the asked may be without an answer
        loss = insides_loss(ours, teacher, learner.projections[-1])
    rate = learner.learning_rate
    learner.update(loss)
    return Step(
        number=question.step,
        seen=len(question.batch),
        asked=len(question.asked),
        answered=len(came),
        loss=float("nan") if loss is None else loss.item(),
        waited=waited,
        learning_rate=rate,
    )
