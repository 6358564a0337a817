"""One training run, from its settings to a saved student and its account."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from torch.utils.tensorboard import SummaryWriter
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from student_trainer import checkpoint, data, student
from student_trainer.account import Account
from student_trainer.config import ConfigError, DistillSettings, FinetuneSettings
from student_trainer.data import DataError, TaskData
from student_trainer.evaluate import evaluate
from student_trainer.learner import Learner
from student_trainer.loop import Watch, distil
from student_trainer.memory import Memory
from student_trainer.questions import Distillation, Step
from student_trainer.result import RunResult
from student_trainer.run_card import RunCard
from student_trainer.schedule import Schedule
from student_trainer.shared_stage import SharedStage, refuse_unwritable
from student_trainer.tariffs import tariffs_of
from student_trainer.teacher_side import TeacherSide, fingerprints_of, open_teachers

EVALUATION_BATCH = 64


@dataclass
class Spell:
    """What this process did of the run: the next step, seconds in the loop, and of these waiting."""

    next_step: int
    seconds: float = 0.0
    waited: float = 0.0


def finetune(settings: FinetuneSettings, watch: Watch | None = None) -> RunResult:
    """A model from labels alone: the same loop, with no teacher in it."""
    return run(DistillSettings(**settings.model_dump()), watch)


def run(settings: DistillSettings, watch: Watch | None = None) -> RunResult:
    """Trains, evaluates and saves one student under `settings.output`; a finished run is only read.

    Raises:
        ConfigError, DataError, StudentError, PriceBookError, TeacherUrlError, HandshakeError: before
            anything is spent.
        TeacherError: a question failed for good; all that was answered is kept.
    """
    refuse_several_processes()
    with RunCard.of(settings) as card:
        return _finished(settings, card) or _run(settings, card, watch)


def _run(settings: DistillSettings, card: RunCard, watch: Watch | None) -> RunResult:
    tariffs, shared = tariffs_of(settings), _shared(settings)
    task = _task(settings)
    model, tokenizer = _student(settings, task)
    schedule = Schedule.of(task.train, settings)
    anatomy = student.Anatomy.of(model, tokenizer, settings.max_length)
    with open_teachers(settings, task, anatomy, card) as teachers:
        projections = teachers.projections(anatomy.width, settings.seed)
        learner = Learner(model, tokenizer, settings, schedule.total, projections, schedule.general)
        depends_on = [*(teacher.fingerprint for teacher in teachers.descriptions), task.digest, str(tariffs)]
        stage = SharedStage(shared, settings, card, learner, schedule, depends_on) if shared else None
        spell = _train(settings, learner, task, teachers, schedule, stage, watch)
    account = Account(
        settings, card.id, schedule, task.train, tariffs, teachers.descriptions, teachers.checks
    )
    return _conclude(settings, learner, task, account, spell)


def _conclude(
    settings: DistillSettings, learner: Learner, task: TaskData, account: Account, spell: Spell
) -> RunResult:
    """Evaluates, saves the student, and writes down what the run came to."""
    bare, tokenizer = learner.accelerator.unwrap_model(learner.model), learner.tokenizer
    device = learner.accelerator.device
    scores = evaluate(bare, tokenizer, task.validation, settings.max_length, EVALUATION_BATCH, device)
    student.save(bare, tokenizer, settings.output / "model")
    questions, sieves = account.questions(range(spell.next_step))
    scheme, flops = account.compute(bare, tokenizer, sieves)
    result = RunResult(
        strategy=settings.strategy if settings.teacher else "none",
        ratio=settings.ratio if settings.teacher else 0.0,
        seed=settings.seed,
        metric=settings.metric,
        scores=scores,
        steps=spell.next_step,
        stopped=spell.next_step < account.schedule.total,
        questions=questions,
        usd=account.money(sieves),
        flops=flops,
        scheme=scheme,
        seconds=spell.seconds,
        waited=spell.waited,
        stages=account.stages(spell.next_step),
        teachers=account.parts(sieves),
    )
    result.save(settings.output / "result.json")
    if not result.stopped:
        checkpoint.remove(settings.output)
    return result


def _shared(settings: DistillSettings) -> Path | None:
    """Where this run's general stage is shared, if it is. With snapshots it is not: they are of its steps."""
    if not settings.general_folder or not settings.general_epochs or settings.snapshots:
        return None
    refuse_unwritable(settings.general_folder)
    return settings.general_folder


def refuse_several_processes() -> None:
    """Raises ConfigError under torchrun or `accelerate launch` with several processes: each would take every
    batch whole, ask and pay for it, and learn from it alone."""
    if (number := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        raise ConfigError(
            f"WORLD_SIZE: {number} processes were launched for one run, which trains in one; start it "
            "without a launcher. Several runs may share an answers file and an account"
        )


def _task(settings: DistillSettings) -> TaskData:
    """The rows, as far as their labels may be used. Raises DataError, also if there is nothing to learn."""
    task = data.load(settings)
    if not settings.use_labels:
        task = replace(task, train=replace(task.train, labels=None))
    if task.train.labels is None and not settings.teacher:
        raise DataError(
            f"{settings.train_split}: no row has a label ({settings.label_column}), and there is no teacher "
            "to give one; correct label_column, or distil from a teacher (of a bench, --no-use-labels leaves "
            "the rows without a teacher out)"
        )
    if task.train.labels is None and settings.when_spent == "labels-only":
        raise ConfigError(
            "when_spent: labels-only needs labels, and no row has one that may be used; choose stop"
        )
    return task


def _student(settings: DistillSettings, task: TaskData) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    model, tokenizer = student.load(
        settings.student, task.label_names, settings.student_layers, settings.seed
    )
    student.refuse_too_long(model, tokenizer, settings.max_length)
    return model, tokenizer


def _finished(settings: DistillSettings, card: RunCard) -> RunResult | None:
    """The folder's result, if its run is done; one that its budget stopped may go on with more."""
    path = settings.output / "result.json"
    if not path.exists():
        return None
    result = RunResult.from_dict(json.loads(path.read_text()))
    if result.stopped:
        return None
    found = check(settings)  # a teacher or rows may have changed where they are: that is another run
    card.refuse_other(found["teacher"], found["rows"])
    return result


def _train(
    settings: DistillSettings,
    learner: Learner,
    task: TaskData,
    teachers: TeacherSide,
    schedule: Schedule,
    stage: SharedStage | None,
    watch: Watch | None,
) -> Spell:
    """The loop from where it stopped, with what is done beside it: checkpoints, scalars, progress."""
    if stage:
        stage.take_over()
    found = checkpoint.latest(settings.output)
    spell = Spell(start := checkpoint.step_of(found))
    memory = Memory(len(task.train), len(teachers.matches))
    learner.accelerator.register_for_checkpointing(memory)
    work = Distillation(
        learner, task.train, teachers.asks, settings, teachers.matches, memory, teachers.insight
    )
    began = perf_counter()
    with SummaryWriter(settings.output / "scalars", purge_step=start) as scalars:
        if found:
            checkpoint.restore(learner.accelerator, found)  # last: it sets the random state of the step
        else:
            _keep(learner, settings, schedule, start)
        for step in distil(work, start):
            spell.next_step, spell.waited = step.number + 1, spell.waited + step.waited
            _write(scalars, step)
            _keep(learner, settings, schedule, spell.next_step)
            if stage and spell.next_step == schedule.general:
                stage.keep(learner)
            if watch:
                watch(step, schedule.total)
    spell.seconds = perf_counter() - began
    return spell


def _keep(learner: Learner, settings: DistillSettings, schedule: Schedule, step: int) -> None:
    """Before a step, what is due of it: a snapshot of the student, which is the same when written again after
    a kill, and a checkpoint."""
    due = {number * schedule.total // settings.snapshots for number in range(settings.snapshots)}
    if step in due:
        bare = learner.accelerator.unwrap_model(learner.model)
        student.save(bare, learner.tokenizer, settings.output / "snapshots" / f"{step:08d}")
    if step and step % settings.checkpoint_steps == 0:
        checkpoint.save(learner.accelerator, settings.output, step)


def _write(scalars: SummaryWriter, step: Step) -> None:
    for name in ("loss", "asked", "answered", "waited", "learning_rate", "kl_weight"):
        scalars.add_scalar(name, getattr(step, name), step.number)


def check(settings: DistillSettings, *, meet: bool = True) -> dict[str, str]:
    """Refuses what would stop a run later. Asks nothing, and without `meet` does not look at the teachers.

    Returns what a run depends on beside its settings: the teacher's fingerprint, and the rows' digest.

    Raises:
        DataError, StudentError, PriceBookError, TeacherUrlError, TeacherError, HandshakeError.
    """
    refuse_several_processes()
    tariffs_of(settings)
    task = _task(settings)
    anatomy = student.Anatomy.of(*_student(settings, task), settings.max_length)
    teachers = fingerprints_of(settings, task, anatomy) if meet else ""
    return {"teacher": teachers, "rows": task.digest}
