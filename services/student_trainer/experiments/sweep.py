"""Cells, one after the other: each is a training run with a name, and its result is kept."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from student_trainer.config import DistillSettings, TrainingSettings
from student_trainer.experiments.results import Results
from student_trainer.loop import Watch
from student_trainer.questions import Step
from student_trainer.result import RunResult

Run = Callable[[DistillSettings, Watch], RunResult]

# Of a recipe: where things are, and what may be raised on the way. A teacher may move, data too.
PLACES = {
    *("data", "output", "answers", "teacher", "resume", "checkpoint_steps", "check_rows", "snapshots"),
    "general_folder",
}

GENERAL = ".general"  # in the output folder: general stages that cells share, while there are more to come


@dataclass(frozen=True)
class Cell:
    """One run. Cells of a `group` learn from the same data, and so take about as long."""

    name: str
    settings: DistillSettings
    group: str = ""

    @property
    def ratio(self) -> float:
        """Share of a batch that is asked about; 0 without a teacher."""
        return self.settings.ratio if self.settings.teacher else 0.0


class Watcher(Protocol):
    """Who is told how the grid goes on."""

    def began(self, cell: Cell) -> None: ...
    def stepped(self, step: Step, planned: int) -> None: ...
    def ended(self, cell: Cell, result: RunResult) -> None: ...


def without_teacher(values: dict[str, Any]) -> dict[str, Any]:
    """A run's settings without all that is about a teacher: the rows' labels are what it learns from."""
    kept = TrainingSettings.model_fields.keys() | {"answers"}
    return {name: value for name, value in values.items() if name in kept} | {"check_rows": 0}


def sweep(
    cells: Iterable[Cell], run: Run, results: Results, watcher: Watcher, keep_models: bool
) -> Iterator[Cell]:
    """Runs each cell that has no result yet, and gives it once its result is kept.

    An interrupted cell goes on from its own checkpoint. Weights and checkpoints of a finished cell go,
    unless `keep_models`. What another process is running is waited for at the end.
    """
    elsewhere: list[Cell] = []
    first, last = ((False, cell) for cell in cells), ((True, cell) for cell in elsewhere)
    for wait, cell in chain(first, last):
        with results.claim(cell.name, wait=wait) as claimed:
            if not claimed:
                elsewhere.append(cell)
                continue
            if cell.name not in results:
                watcher.began(cell)
                result = run(cell.settings, watcher.stepped)
                results.add(cell.name, result)
                watcher.ended(cell, result)
                yield cell
            if not keep_models:
                _drop_weights(cell.settings.output)


def _drop_weights(folder: Path) -> None:
    for weights in (folder / "model", folder / "snapshots", *folder.glob("checkpoint-*")):
        shutil.rmtree(weights, ignore_errors=True)
