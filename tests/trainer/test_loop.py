"""The loop's parts, each by itself: rows, look-ahead, one step with whole, short and no answers."""

import math
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_task import LABELS, rows

from student_trainer import student as students
from student_trainer.config import DistillSettings
from student_trainer.data import Rows
from student_trainer.learner import Learner
from student_trainer.loop import Step, distil, learnt
from student_trainer.loop import learn as learn_with
from student_trainer.memory import Memory
from student_trainer.objective import Match
from student_trainer.questions import Distillation, NoTeacher, Question, choose, one_ahead
from student_trainer.schedule import Batch, Schedule, take
from teacher_api.messages import Answer, Instance, Outputs

MADE = rows(12, "loop")
TASK = Rows([Instance(row["text"]) for row in MADE], [LABELS.index(row["label"]) for row in MADE])
SAME = [Match((0, 1, 2))]


def settings_of(**given: object) -> DistillSettings:
    fixed = {
        "data": "d",
        "output": "o",
        "student": "s",
        "teacher": "local:t",
        "learning_rate": 1e-2,
        "warmup": 0,
    }
    return DistillSettings(**fixed | given)


def learner_of(folder: Path, settings: DistillSettings) -> Learner:
    """Without dropout: two forwards of it agree."""
    model, tokenizer = students.load(str(folder), LABELS, None, 0)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return Learner(model, tokenizer, settings, total_steps=10)


def answered(logits: Sequence[Sequence[float] | None]) -> Future[list[Answer | None]]:
    answers: Future[list[Answer | None]] = Future()
    answers.set_result(
        [None if row is None else Answer(Outputs(np.array(row, np.float32))) for row in logits]
    )
    return answers


def question(step: int, batch: Batch, asked: list[int], told: Sequence[Sequence[float] | None]) -> Question:
    """To the one teacher."""
    return Question(step, batch, asked, torch.ones(len(asked), 1), [answered(told)])


def work_of(learner: Learner, settings: DistillSettings, matches: Sequence[Match]) -> Distillation:
    return Distillation(learner, TASK, NoTeacher(), settings, matches, Memory(len(TASK), len(matches)))


def learn(
    learner: Learner, about: Question, settings: DistillSettings, matches: Sequence[Match]
) -> Step | None:
    """Without anything to remember."""
    return learn_with(work_of(learner, settings, matches), about)


def weights(learner: Learner) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in learner.model.parameters()])


@pytest.mark.parametrize(("number", "batch"), [(12, 4), (13, 4), (3, 4), (1, 1)])
def test_an_epoch_covers_every_row_once(number: int, batch: int) -> None:
    schedule = Schedule(number, batch, epochs=2, seed=7)
    epochs = [
        [schedule.rows_of(step) for step in range(schedule.total)[start : start + schedule.steps_an_epoch]]
        for start in (0, schedule.steps_an_epoch)
    ]
    for steps in epochs:
        assert sorted(row for step in steps for row in step) == list(range(number))
        assert all(1 <= len(step) <= batch for step in steps)
    assert number < 12 or epochs[0] != epochs[1]


def test_a_schedule_has_parts_of_epochs_and_one_step_at_the_least() -> None:
    assert Schedule(100, 10, 2.5, 0).total == 25
    assert Schedule(100, 10, 0.01, 0).total == 1
    assert Schedule(100, 10, 1, 0).rows_of(3) == Schedule(100, 10, 2, 0).rows_of(3)
    assert Schedule(100, 10, 1, 0).rows_of(3) != Schedule(100, 10, 1, 1).rows_of(3)


@pytest.mark.parametrize("number", [0, 1, 2, 5])
def test_one_ahead_gives_the_same_items_each_after_the_next_was_started(number: int) -> None:
    started: list[int] = []
    for item in one_ahead(started.append(n) or n for n in range(number)):
        assert started == list(range(min(item + 2, number)))
    assert started == list(range(number))


def test_the_objective_equals_a_computation_by_hand(student: Path) -> None:
    """λ = 0.25: three quarters of the mean cross-entropy, a quarter of the mean KL(teacher ‖ student)."""
    settings = settings_of(kd_weight=0.25, label_loss="selected")
    learner = learner_of(student, settings)
    batch = take(TASK, [3, 4, 5, 6])
    asked, told = [2, 0], [[2.0, 0.0, -1.0], [0.0, 1.0, 3.0]]
    ours = learner.scores(batch[asked].instances, dropout=False)
    gold = batch.labels[asked]
    by_hand = 0.0
    for logits, label, row in zip(ours.tolist(), gold.tolist(), told, strict=True):
        log_q = [x - math.log(sum(map(math.exp, logits))) for x in logits]
        log_p = [x - math.log(sum(map(math.exp, row))) for x in row]
        kl = sum(math.exp(p) * (p - q) for p, q in zip(log_p, log_q, strict=True))
        by_hand += (0.75 * -log_q[label] + 0.25 * kl) / 2
    before = weights(learner)
    step = learn(learner, question(5, batch, asked, told), settings, SAME)
    assert step is not None
    assert step.loss == pytest.approx(by_hand, rel=1e-5)
    assert (step.number, step.seen, step.asked, step.answered) == (5, 4, 2, 2)
    assert not torch.equal(weights(learner), before)


@pytest.mark.parametrize("whole", [False, True])
def test_a_short_answer_teaches_what_it_has(student: Path, whole: bool) -> None:
    settings = settings_of(when_spent="labels-only", label_loss="all" if whole else "selected")
    learner = learner_of(student, settings)
    batch = take(TASK, [3, 4, 5, 6])
    asked, told = [2, 0, 1], [None, [0.0, 1.0, 3.0], None]
    logits = learner.scores(batch.instances, dropout=False)
    labelled = list(range(4)) if whole else asked
    cross_entropy = F.cross_entropy(logits[labelled], batch.labels[labelled])
    target = torch.tensor([told[1]]).log_softmax(-1)
    kl = (target.exp() * (target - logits[[0]].log_softmax(-1))).sum()
    step = learn(learner, question(0, batch, asked, told), settings, SAME)
    assert step is not None
    assert step.loss == pytest.approx(float(0.5 * cross_entropy + 0.5 * kl), rel=1e-5)
    assert (step.asked, step.answered) == (3, 1)


def test_a_short_answer_teaches_nothing_where_the_run_is_to_stop(student: Path) -> None:
    settings = settings_of()
    learner = learner_of(student, settings)
    before = weights(learner)
    told = [[0.0, 1.0, 3.0], None]
    assert learn(learner, question(0, take(TASK, [3, 4]), [0, 1], told), settings, SAME) is None
    assert torch.equal(weights(learner), before)


def test_nothing_known_about_a_batch_only_passes_time(student: Path) -> None:
    settings = settings_of(when_spent="labels-only")
    learner = learner_of(student, settings)
    learn(learner, question(0, take(TASK, [0]), [0], [None]), settings, SAME)
    before = weights(learner)
    bare = Rows(TASK.instances, None)
    step = learn(learner, question(0, take(bare, [1, 2]), [0, 1], [None, None]), settings, SAME)
    assert step is not None
    assert math.isnan(step.loss)
    assert torch.equal(weights(learner), before)
    empty = question(1, take(bare, [1, 2]), [], [])
    assert learn(learner, empty, settings, SAME) is not None


def test_answers_are_put_into_the_order_of_the_students_classes(student: Path) -> None:
    settings = settings_of(kd_weight=1)
    losses = []
    for told, permutation in (([[5.0, 0.0, -5.0]], (0, 1, 2)), ([[0.0, -5.0, 5.0]], (2, 0, 1))):
        learner = learner_of(student, settings)
        step = learn(learner, question(0, take(TASK, [0]), [0], told), settings, [Match(permutation)])
        assert step is not None
        losses.append(step.loss)
    assert losses[0] == losses[1]


@pytest.mark.parametrize("dropout", [False, True])
def test_the_pass_that_scores_doubt_leaves_no_gradient(student: Path, dropout: bool) -> None:
    learner = learner_of(student, settings_of())
    scores = learner.scores(TASK.instances[:4], dropout=dropout)
    assert not scores.requires_grad
    assert all(parameter.grad is None for parameter in learner.model.parameters())
    assert learner.predictions(TASK.instances[:4]).logits.requires_grad
    assert learner.model.training


def test_the_most_doubtful_are_asked_about(student: Path) -> None:
    settings = settings_of(strategy="lc", ratio=0.5)
    learner = learner_of(student, settings)
    batch = take(TASK, list(range(8)))
    sure = learner.scores(batch.instances, dropout=False).softmax(-1).amax(-1)
    assert choose(batch, 8, 0, learner, settings, "lc")[0].tolist() == sure.argsort()[:4].tolist()
    assert choose(batch, 8, 0, learner, settings, "all")[0].tolist() == list(range(8))
    chosen = [choose(batch, 8, step, learner, settings, "random")[0].tolist() for step in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_a_loop_without_a_teacher_and_one_that_begins_in_the_middle(student: Path) -> None:
    settings = settings_of(teacher=None, batch_size=4, epochs=2)
    learner = learner_of(student, settings)
    steps = list(distil(work_of(learner, settings, SAME), start=2))
    assert [step.number for step in steps] == [2, 3, 4, 5]
    assert all((step.seen, step.answered) == (4, 0) for step in steps)


def test_a_part_of_a_batch() -> None:
    batch: Batch = take(TASK, [5, 7, 9])
    part = batch[[2, 0]]
    assert part.rows == [9, 5]
    assert part.instances == [TASK.instances[9], TASK.instances[5]]
    assert part.labels.tolist() == [TASK.labels[9], TASK.labels[5]]
    assert take(Rows(TASK.instances, None), [1]).labels.tolist() == [-1]


@pytest.mark.parametrize(("labels", "learnt_from"), [([0, 1, -1, 2], 4), ([-1, -1, -1, -1], 2)])
def test_label_loss_on_all_learns_from_the_asked_alone_where_no_row_has_a_label(
    labels: list[int], learnt_from: int, student: Path
) -> None:
    settings = settings_of(label_loss="all")
    own = Rows([Instance(str(i)) for i in range(4)], labels)
    work = replace(work_of(learner_of(student, settings), settings, SAME), rows=own)
    rows, positions = learnt(work, question(0, take(own, [0, 1, 2, 3]), [3, 1], []))
    assert len(rows) == learnt_from
    assert [rows.rows[place] for place in positions] == [3, 1]


def test_replay_fills_a_batch_without_labels_up_with_what_is_known(student: Path) -> None:
    """Three known rows, of other batches too, beside one that is asked about; batches hold three."""
    settings = settings_of(label_loss="selected", replay=True, batch_size=3)
    work = work_of(learner_of(student, settings), settings, SAME)
    work.memory.remember([0, 4, 9], torch.ones(3, 1))
    found = [learnt(work, question(step, take(TASK, [5, 6, 4]), [1], [])) for step in range(20)]
    assert all((batch.rows[0], len(batch), positions) == (6, 3, [0, 1, 2]) for batch, positions in found)
    assert {row for batch, _ in found for row in batch.rows[1:]} == {0, 4, 9}


def test_replay_learns_again_from_the_rows_that_come_up_where_labels_count_on_all(student: Path) -> None:
    settings = settings_of(label_loss="all", replay=True, batch_size=3)
    work = work_of(learner_of(student, settings), settings, SAME)
    work.memory.remember([0, 4, 9], torch.ones(3, 1))
    batch, positions = learnt(work, question(0, take(TASK, [5, 6, 4]), [1], []))
    assert (batch.rows, positions) == ([5, 6, 4], [1, 2])
