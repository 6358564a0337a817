"""`student-trainer augment` on the terminal: a bar, then what was written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from student_trainer.augment.command import Outcome, Watch


@contextmanager
def bar(console: Console) -> Iterator[Watch]:
    """Gives the function to be told of each chunk."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("rows", total=None, note="reading")

        def watch(done: int, source: int, written: int) -> None:
            progress.update(task, completed=done, total=source, note=f"{written:,} rows written")

        yield watch


def conclude(console: Console, output: Path, outcome: Outcome) -> None:
    """What there is now, how fast it came, and what to do with it."""
    state = outcome.state
    speed = f", {outcome.speed:,.0f} rows per second" if outcome.speed else ""
    twice = outcome.source - outcome.distinct
    source = f"{outcome.source:,}" + (f" ({twice:,} there before)" if twice else "")
    lines = [f"{state.rows:,} rows out of {source}, {state.dropped:,} duplicates dropped{speed}"]
    if state.rows == outcome.distinct:
        lines.append(
            "no row has a new variant; are word_vectors or masked_lm of these rows' language? If they are, "
            "raise probability, candidates or times"
        )
    lines.append(f"go on with: student-trainer distill --data {output}")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
