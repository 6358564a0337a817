"""Wall time of a training step at r = .1 against full KD, and the share of it spent waiting for the teacher.

    python benchmarks/training.py [--rounds 4] [--steps 6] [--json FILE]

The student is the first 3 of MiniLM's 6 layers (384 wide), the teacher all 6 with a random head, for
what is measured is time. The texts are English sentences of 8-60 tokens (mean 23) in batches of 32;
gold labels count on the asked instances. The teacher is in the trainer's own process (`local:`), or a
server process on the same machine that is asked over gRPC, its cache off. Cold steps ask about texts
that nobody has asked about; cached ones ask a server that has answered all before; kept ones find every
answer on the trainer's own disk.

Each round runs all cases over the same rows, one after another; medians over the rounds are of ratios
within a round, so that a noisy machine disturbs all cases alike. `waited` is the share of a step that
stood still for the teacher; on one machine its work also slows the student's beside it. A case's first
step of a round has nothing before it, its last nothing after: neither is timed.

Last, what a CPU gains by not computing padding: forward and backward of the same batches with it, as a
ratio to those without.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

# As the trainer's command sets them, before torch loads.
os.environ |= {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000", "TOKENIZERS_PARALLELISM": "false"}

sys.path.insert(0, str(Path(__file__).parent / "serving"))
from bench import CLASSES, prepare, serving
from transformers import BatchEncoding, PreTrainedModel

from student_trainer import student
from student_trainer.config import DistillSettings
from student_trainer.data import Rows, TaskData, collate
from student_trainer.learner import Learner
from student_trainer.loop import distil
from student_trainer.memory import Memory
from student_trainer.padding import skip_padding
from student_trainer.questions import Distillation
from student_trainer.run_card import RunCard
from student_trainer.schedule import Schedule
from student_trainer.teacher_side import TeacherSide, open_teachers
from teacher_api.messages import Instance

FULL = "full KD"
CHOICES = {FULL: ("all", 1.0), "random": ("random", 0.1), "entropy": ("entropy", 0.1)}
TEACHERS = ("local", "gRPC", "cached", "kept")
BATCH = 32
LAYERS = 3  # of the student
LABELS = tuple(f"LABEL_{number}" for number in range(CLASSES))  # the names of a head that was given none


@dataclass
class Case:
    """One choice against one teacher; for each round seconds a step, and the share of them spent waiting."""

    settings: DistillSettings
    teacher: TeacherSide
    seconds: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4, help="of which the medians are taken")
    parser.add_argument("--steps", type=int, default=6, help="timed of each case in a round")
    parser.add_argument("--json", type=Path, help="where to write the result, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder, steps = Path(name), options.steps + 2
        texts = prepare(folder / "teacher")[: (options.rounds + 1) * steps * BATCH]
        task = task_of(texts)
        model, room = str(folder / "teacher"), ["--cache-entries", str(len(texts))]
        served = stack.enter_context(serving(model, []))
        knowing = stack.enter_context(serving(model, room, cached=True))
        learner, anatomy = learner_of(folder, len(texts))
        urls = {"gRPC": f"grpc://{served.grpc}", "cached": f"grpc://{knowing.grpc}"}
        cases = open_cases(folder, task, anatomy, urls, stack)
        measure(cases, task.train, learner, options.rounds, steps)
        padding = padded_against_packed(folder, texts[: options.rounds * options.steps * BATCH])
    sizes = {"rounds": options.rounds, "steps": options.steps, "batch": BATCH}
    report = summary(cases) | {"padding": padding} | sizes
    print(table(report), json.dumps(report), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def task_of(texts: Sequence[str]) -> TaskData:
    labels = [number % CLASSES for number in range(len(texts))]
    rows = Rows([Instance(text) for text in texts], labels)
    return TaskData(rows, Rows(rows.instances[:1], labels[:1]), LABELS, digest="")


def learner_of(folder: Path, rows: int) -> tuple[Learner, student.Anatomy]:
    """The student of all cases: what it has learnt does not change a step's time."""
    source = str(folder / "teacher")
    model, tokenizer = student.load(source, LABELS, LAYERS, seed=0)
    settings = settings_of(folder, "learner", f"local:{source}", FULL)
    anatomy = student.Anatomy.of(model, tokenizer, settings.max_length)
    return Learner(model, tokenizer, settings, rows), anatomy


def settings_of(folder: Path, case: str, url: str, choice: str) -> DistillSettings:
    strategy, ratio = CHOICES[choice]
    return DistillSettings(
        data="",
        student="",
        output=folder / case,
        teacher=url,
        strategy=strategy,
        ratio=ratio,
        label_loss="selected",  # what is not asked about is not learnt from: the cheapest step
        batch_size=BATCH,
        check_rows=0,
        answers=folder / f"{case}.sqlite",
    )


def open_cases(
    folder: Path,
    task: TaskData,
    anatomy: student.Anatomy,
    urls: dict[str, str],
    stack: contextlib.ExitStack,
) -> dict[tuple[str, str], Case]:
    """By teacher and choice. Each keeps its own answers, but for "kept", which has all of them already, and
    has made the server of "cached" know them."""
    urls = {"local": f"local:{folder / 'teacher'}", **urls, "kept": urls["cached"]}
    cases = {}
    for way in TEACHERS:
        for choice in CHOICES:
            settings = settings_of(folder, f"{way}-{choice}", urls[way], choice)
            if way == "kept":
                settings = settings.model_copy(update={"answers": folder / "kept.sqlite"})
            teacher = stack.enter_context(open_teachers(settings, task, anatomy, RunCard.of(settings)))
            cases[way, choice] = Case(settings, teacher)
    everything = range(len(task.train))
    cases["kept", FULL].teacher.asks.submit(-1, everything, task.train.instances).result()
    return cases


def measure(
    cases: dict[tuple[str, str], Case], rows: Rows, learner: Learner, rounds: int, steps: int
) -> None:
    """The first round warms up and is thrown away."""
    for number in range(rounds + 1):
        for case in cases.values():
            seconds, waited = timed(case, rows, learner, number * steps, steps)
            if number:
                case.seconds.append(seconds)
                case.waited.append(waited)


def timed(case: Case, rows: Rows, learner: Learner, start: int, steps: int) -> tuple[float, float]:
    """Seconds a step and the share spent waiting, without the first and the last step."""
    an_epoch = Schedule(len(rows), BATCH, 1, 0).steps_an_epoch
    settings = case.settings.model_copy(update={"epochs": (start + steps) / an_epoch})
    memory = Memory(len(rows), 1)
    work = Distillation(learner, rows, case.teacher.asks, settings, case.teacher.matches, memory)
    done = distil(work, start)
    next(done)
    began = time.perf_counter()
    waited = sum(step.waited for step in islice(done, steps - 2))
    seconds = time.perf_counter() - began
    rest = list(done)
    assert [step.number for step in rest] == [start + steps - 1]  # nothing is left on its way
    return seconds / (steps - 2), waited / seconds


def summary(cases: dict[tuple[str, str], Case]) -> dict[str, Any]:
    """By teacher and choice: medians over the rounds."""
    report: dict[str, Any] = {}
    for (way, choice), case in cases.items():
        full = cases[way, FULL].seconds
        local = cases["local", FULL].seconds
        report.setdefault(way, {})[choice] = {
            "of_full_kd": ratio(case.seconds, full),
            "of_full_kd_local": ratio(case.seconds, local),
            "waited": round(statistics.median(case.waited), 3),
            "ms_a_step": round(1000 * statistics.median(case.seconds), 1),
        }
    return {"teachers": report}


def ratio(seconds: Sequence[float], base: Sequence[float]) -> float:
    return round(statistics.median(one / other for one, other in zip(seconds, base, strict=True)), 3)


def padded_against_packed(folder: Path, texts: Sequence[str]) -> dict[str, float]:
    """Forward and backward of each batch on the CPU, one way after the other, and tokens a batch of each."""
    padded, tokenizer = student.load(str(folder / "teacher"), LABELS, LAYERS, seed=0)
    packed, _ = student.load(str(folder / "teacher"), LABELS, LAYERS, seed=0)
    assert skip_padding(packed)
    seconds, tokens = [], []
    for start in range(0, len(texts), BATCH):
        batch = collate(tokenizer, [Instance(text) for text in texts[start : start + BATCH]], 128)
        seconds.append((learning(padded, batch), learning(packed, batch)))
        tokens.append((batch["input_ids"].numel(), int(batch["attention_mask"].sum())))
    computed, real = map(statistics.mean, zip(*tokens, strict=True))
    gain = ratio(*zip(*seconds[1:], strict=True))  # the first one warms up
    return {"padded_of_packed": gain, "tokens_padded": computed, "tokens_real": real}


def learning(model: PreTrainedModel, batch: BatchEncoding) -> float:
    """Seconds of a forward, with dropout, and its backward."""
    model.train()
    began = time.perf_counter()
    model(**batch).logits.logsumexp(-1).mean().backward()
    seconds = time.perf_counter() - began
    model.zero_grad()
    return seconds


def table(report: dict[str, Any]) -> str:
    return "\n".join(lines(report))


def lines(report: dict[str, Any]) -> Iterator[str]:
    yield f"{'teacher':<9}{'asked':<16}{'x full KD':>10}{'x full KD, local':>18}{'waited':>9}{'ms/step':>9}"
    for way, choices in report["teachers"].items():
        for choice, case in choices.items():
            asked = choice if choice == FULL else f"{choice}, r = .1"
            ratios = f"{case['of_full_kd']:>10.2f}{case['of_full_kd_local']:>18.2f}"
            yield f"{way:<9}{asked:<16}{ratios}{case['waited']:>9.1%}{case['ms_a_step']:>9.0f}"
    padding = report["padding"]
    tokens = f"{padding['tokens_padded']:.0f} tokens a batch, {padding['tokens_real']:.0f} of them real"
    yield f"forward and backward with padding take {padding['padded_of_packed']:.2f} of without: {tokens}"


if __name__ == "__main__":
    main()
