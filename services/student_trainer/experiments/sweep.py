"""The grid, cell by cell: no KD, each strategy at each ratio, full KD; one seed after the other.

Within a seed the cheap cells come first, so that a grid that is cut short has whole rows to compare.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from student_trainer.config import BenchSettings, ConfigError, DistillSettings
from student_trainer.experiments.results import Results
from student_trainer.loop import Step, Watch
from student_trainer.result import RunResult, write_json

Run = Callable[[DistillSettings, Watch], RunResult]

# Where things are, and the grid itself: a grid may be widened, and a teacher may move.
_FREE = {
    *("data", "output", "answers", "teacher", "resume", "checkpoint_steps", "check_rows", "keep_models"),
    *("strategies", "ratios", "seeds", "strategy", "ratio", "seed"),
}


_WITHOUT_TEACHER: dict[str, Any] = {
    **{"teacher": [], "teacher_labels": None, "adoption": "single", "supervision": "none"},
    **{"budget_queries": None, "budget_usd": None},
}


@dataclass(frozen=True)
class Cell:
    """One run of the grid. `strategy` is `none` without a teacher (its ratio is 0), `all` for full KD."""

    strategy: str
    ratio: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.strategy}-{self.ratio:.10g}-{self.seed}"


class Watcher(Protocol):
    """Who is told how the grid goes on."""

    def began(self, cell: Cell) -> None: ...
    def stepped(self, step: Step, planned: int) -> None: ...
    def ended(self, cell: Cell, result: RunResult) -> None: ...


def plan(settings: BenchSettings) -> list[Cell]:
    """Every cell, in the order in which they run. Random is always among them: it is the control."""
    strategies = dict.fromkeys(["random", *settings.strategies])
    ratios = sorted(set(settings.ratios))
    return [
        cell
        for seed in dict.fromkeys(settings.seeds)
        for cell in (
            Cell("none", 0, seed),
            *(Cell(strategy, ratio, seed) for ratio in ratios for strategy in strategies),
            Cell("all", 1, seed),
        )
    ]


def settings_of(cell: Cell, settings: BenchSettings) -> DistillSettings:
    """What `run` is given for a cell: its own folder, and the answers that all cells share."""
    shared = {name: getattr(settings, name) for name in DistillSettings.model_fields}
    first = next(cell for cell in plan(settings) if cell.strategy != "none")
    own: dict[str, Any] = {
        "output": settings.output / "cells" / cell.name,
        "resume": True,
        "seed": cell.seed,
        "strategy": cell.strategy,
        "ratio": cell.ratio,
        "check_rows": settings.check_rows if cell == first else 0,  # it is one teacher
    }
    if cell.strategy == "none":
        own |= {"strategy": "all", "ratio": 1} | _WITHOUT_TEACHER
    return DistillSettings(**shared | own)


def recipe_of(settings: BenchSettings, found: dict[str, str]) -> dict[str, Any]:
    """All that changes a cell's outcome but its place in the grid; teacher and rows by what they are
    (`run.check`), not where."""
    return found | settings.model_dump(mode="json", exclude=_FREE)


def open_results(settings: BenchSettings, recipe: dict[str, Any]) -> Results:
    """The output folder's finished cells.

    Raises:
        ConfigError: they were made with another recipe; says what differs.
    """
    path = settings.output / "recipe.json"
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
    try:
        results = Results(settings.output / "results.jsonl", digest)
    except ConfigError as error:
        before = json.loads(path.read_text()) if path.exists() else recipe
        changed = [
            f"{name}: it was {before.get(name)!r}, now {recipe.get(name)!r}"
            for name in sorted(before.keys() | recipe.keys())
            if before.get(name) != recipe.get(name)
        ]
        raise ConfigError("\n".join([str(error), *changed])) from None
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, recipe)
    return results


def sweep(settings: BenchSettings, run: Run, results: Results, watcher: Watcher) -> Iterator[Cell]:
    """Runs each cell that has no result yet, and gives it once its result is kept.

    An interrupted cell goes on from its own checkpoint. Weights and checkpoints of a finished cell go,
    unless `keep_models`.
    """
    for cell in plan(settings):
        if cell.name not in results:
            watcher.began(cell)
            result = run(settings_of(cell, settings), watcher.stepped)
            results.add(cell.name, result)
            watcher.ended(cell, result)
            yield cell
        if not settings.keep_models:
            _drop_weights(cell, settings)


def _drop_weights(cell: Cell, settings: BenchSettings) -> None:
    folder = settings.output / "cells" / cell.name
    for weights in (folder / "model", *folder.glob("checkpoint-*")):
        shutil.rmtree(weights, ignore_errors=True)
