"""One run on the terminal: a bar while it learns, a few lines when it is done."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from student_trainer.loop import Watch
from student_trainer.questions import Step
from student_trainer.result import Part, RunResult


@contextmanager
def bar(console: Console) -> Iterator[Watch]:
    """Gives the function to be told of each step and the planned number of them."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
    asked = 0
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("steps", total=None, note="")

        def watch(step: Step, planned: int) -> None:
            nonlocal asked
            asked += step.answered
            note = f"loss {step.loss:.3f}" + (f", {asked:,} answers" if asked else "")
            progress.update(task, completed=step.number + 1, total=planned, note=note)

        yield watch


def conclude(console: Console, output: Path, result: RunResult) -> None:
    """What the run came to, and where it is."""
    questions, usd = result.questions, result.usd
    scores = ", ".join(f"{name} {100 * value:.1f}" for name, value in result.scores.items())
    lines = [f"{scores} after {result.steps:,} steps{' (budget spent)' if result.stopped else ''}"]
    if questions.asked:
        lines.append(
            f"{questions.asked:,} questions about {questions.seen:,} instances: "
            f"{questions.charged:,} charged (+ {questions.checked:,} to check the teacher), "
            f"{questions.cached:,} from its cache, {questions.kept:,} kept, "
            f"{questions.joined:,} joined, {questions.refused:,} refused"
        )
    checked = [(place, part) for place, part in enumerate(result.teachers, 1) if part.check_rows]
    lines += [teacher_score(f"{place}, {part.name},", part, result.metric) for place, part in checked]
    if len(result.teachers) > 1:
        lines += [_part(number, part) for number, part in enumerate(result.teachers, 1)]
    lines += [
        f"{name} stage: {stage.steps:,} steps, {stage.questions.asked:,} questions, "
        f"{stage.questions.charged:,} charged, {stage.units:,} units"
        + ("" if stage.usd is None else f", ${stage.usd:,.2f}, with a cache ${stage.usd_cached:,.2f}")
        for name, stage in result.stages.items()
    ]
    if usd.full is not None:
        lines.append(
            f"at this tariff: full ${usd.full:,.2f}, with a cache ${usd.full_cached:,.2f}; "
            f"this run ${usd.selected:,.2f}, with a cache ${usd.selected_cached:,.2f}"
        )
    lines.append(f"student in {output / 'model'}, account in {output / 'result.json'}")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def teacher_score(name: str, part: Part, metric: str) -> str:
    """Its own, on the validation rows that it was asked about first."""
    rows = f"{part.check_rows:,} validation rows that it was asked about first"
    return f"teacher {name} itself has {metric} {100 * part.check_scores[metric]:.1f} on {rows}"


def _part(number: int, part: Part) -> str:
    """Many a teacher is called `model`: it is told by its place."""
    counts = f"{part.questions:,} questions, {part.distinct:,} different, {part.charged:,} charged"
    dollars = "" if part.usd is None else f"; ${part.usd:,.2f}, with a cache ${part.usd_cached:,.2f}"
    return f"teacher {number}, {part.name}: {counts}{dollars} ({part.tariff})"
