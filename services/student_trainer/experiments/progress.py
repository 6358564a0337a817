"""How a grid goes on, on the terminal: a bar for the grid with the time that is left, a bar for the cell."""

from statistics import mean
from types import TracebackType
from typing import Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from student_trainer.experiments.results import Results
from student_trainer.experiments.sweep import Cell
from student_trainer.experiments.table import duration
from student_trainer.questions import Step
from student_trainer.result import RunResult


class Display:
    """Bars that a `Watcher`'s calls move, and a line for each finished cell.

    Args:
        cells: the whole plan.
        results: what is finished; read again after every cell.
        console: where it is shown.
    """

    def __init__(self, cells: list[Cell], results: Results, console: Console) -> None:
        self._cells, self._results = cells, results
        self._waiting: list[Cell] = []  # the one that is run, and those behind it
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        self._grid = self._bars.add_task("grid", total=len(cells), note="")
        self._cell = self._bars.add_task("", total=None, note="", visible=False)
        self._count()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._count()  # others may have finished what was waited for
        self._bars.stop()

    def began(self, cell: Cell) -> None:
        self._waiting = [cell, *(other for other in self._missing() if other is not cell)]
        self._count()
        self._bars.reset(self._cell, description=cell.name, total=None, visible=True, note="")
        self._say_left(1.0)

    def stepped(self, step: Step, planned: int) -> None:
        done = step.number + 1
        self._bars.update(self._cell, completed=done, total=planned, note=f"loss {step.loss:.3f}")
        self._say_left(1 - done / planned)

    def ended(self, cell: Cell, result: RunResult) -> None:
        score = f"{result.metric} {100 * result.score:5.1f}"
        self._bars.console.print(f"{cell.name:<16} {score}  {duration(result.seconds)}", highlight=False)
        self._count()
        self._bars.update(self._cell, visible=False)

    def _count(self) -> None:
        self._bars.update(self._grid, completed=len(self._cells) - len(self._missing()))

    def _missing(self) -> list[Cell]:
        return [cell for cell in self._cells if cell.name not in self._results]

    def _say_left(self, of_this_cell: float) -> None:
        current, *others = estimates(self._waiting, self._finished())
        left = current * of_this_cell + sum(others)
        self._bars.update(self._grid, note=f"about {duration(left)} left" if left else "")

    def _finished(self) -> list[tuple[str, RunResult]]:
        found = ((cell.group, self._results.get(cell.name)) for cell in self._cells)
        return [(group, result) for group, result in found if result is not None]


def estimates(cells: list[Cell], finished: list[tuple[str, RunResult]]) -> list[float]:
    """Seconds that each cell will take, judged by finished ones, behind their groups: of its own group
    where there are any, of the nearest ratios; 0 if there is none."""
    return [_estimate(cell.ratio, _of_group(cell.group, finished)) for cell in cells]


def _of_group(group: str, finished: list[tuple[str, RunResult]]) -> list[RunResult]:
    own = [result for its_group, result in finished if its_group == group]
    return own or [result for _, result in finished]


def _estimate(ratio: float, finished: list[RunResult]) -> float:
    if not finished:
        return 0.0
    ratios = sorted({result.ratio for result in finished})
    seconds = [mean(result.seconds for result in finished if result.ratio == one) for one in ratios]
    return float(np.interp(ratio, ratios, seconds))
