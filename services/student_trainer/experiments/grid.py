"""The plain grid of `bench`: no KD (if labels may be used), each strategy at each ratio, full KD; one seed
after the other.

Within a seed the cheap cells come first, so that a grid that is cut short has whole rows to compare.
"""

from typing import Any

from student_trainer.config import BenchSettings, DistillSettings
from student_trainer.experiments.results import Recipe, Results
from student_trainer.experiments.sweep import GENERAL, PLACES, Cell, without_teacher

# The grid itself may be widened.
_FREE = PLACES | {"keep_models", "strategies", "ratios", "seeds", "strategy", "ratio", "seed"}


def plan(settings: BenchSettings) -> list[Cell]:
    """Every cell, in the order in which they run. Random is always among them: it is the control."""
    strategies = dict.fromkeys(["random", *settings.strategies])
    ratios = sorted(set(settings.ratios))
    places = [
        place
        for seed in dict.fromkeys(settings.seeds)
        for place in (
            *([("none", 0.0, seed)] if settings.use_labels else []),
            *((strategy, ratio, seed) for ratio in ratios for strategy in strategies),
            ("all", 1.0, seed),
        )
    ]
    # It is one teacher: the first cell that has it checks it.
    return [_cell(*place, settings, check=number == 1) for number, place in enumerate(places)]


def _cell(strategy: str, ratio: float, seed: int, settings: BenchSettings, check: bool) -> Cell:
    """Its own folder, and the answers that all cells share."""
    name = f"{strategy}-{ratio:.10g}-{seed}"
    shared = {name: getattr(settings, name) for name in DistillSettings.model_fields}
    own: dict[str, Any] = {
        "output": settings.output / "cells" / name,
        "general_folder": settings.general_folder or settings.output / GENERAL,
        "resume": True,
        "seed": seed,
        "strategy": strategy,
        "ratio": ratio,
        "check_rows": settings.check_rows if check else 0,
    }
    if strategy == "all":
        own |= {"pool": None, "warm_start": "none"}  # there is nothing to choose
    values = shared | own
    return Cell(name, DistillSettings(**without_teacher(values) if strategy == "none" else values))


def recipe_of(settings: BenchSettings, found: dict[str, str]) -> dict[str, Any]:
    """All that changes a cell's outcome but its place in the grid; teacher and rows by what they are
    (`run.check`), not where."""
    return found | settings.model_dump(mode="json", exclude=_FREE)


def open_results(settings: BenchSettings, recipe: Recipe) -> Results:
    """The output folder's finished cells.

    Raises:
        ConfigError: they were made with another recipe; says what differs.
    """
    return Results(settings.output / "results.jsonl", lambda _: recipe)
