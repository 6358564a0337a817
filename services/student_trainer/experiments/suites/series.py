"""What a run was like over its steps, as short as a figure needs it: kept in its result."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from student_trainer.config import DistillSettings
from student_trainer.experiments.suites import selected
from student_trainer.experiments.suites.suite import Figure
from student_trainer.result import RunResult

Points = list[tuple[int, float]]  # step, value
Series = dict[str, list[float | None]]

PARTS = 100


def of_run(settings: DistillSettings, steps: int, figure: Figure) -> Series:
    """Of a finished run whose weights are still there: what the figure draws, empty where the run had nothing
    of it, and the mean KL weight if there is one."""
    if figure.kind == "map":
        return selected.map_of(settings)
    wanted = dict.fromkeys(["kl_weight", *figure.y])
    found = {name: thinned(READERS[name](settings), steps) for name in wanted}
    return {name: values for name, values in found.items() if values or name in figure.y}


def enough(figure: Figure, result: RunResult) -> bool:
    """Whether a result, perhaps of another suite, has what the figure draws."""
    drawn: list[str] = ["map_x"] if figure.kind == "map" else [*figure.y]
    return all(name in result.series for name in drawn)


def kl_weight(settings: DistillSettings) -> Points:
    """Of each step, from the run's scalars."""
    return scalars(settings.output / "scalars", "kl_weight")


READERS: dict[str, Callable[[DistillSettings], Points]] = {
    "kl_weight": kl_weight,
    "teacher_entropy": selected.teacher_entropy,
    "centre_distance": selected.centre_distance,
    "distance_then": selected.distance_then,
}


def scalars(folder: Path, name: str) -> Points:
    """What was written under a name; nothing if there is no folder."""
    if not folder.exists():
        return []
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    if name not in events.Tags()["scalars"]:
        return []
    return [(event.step, event.value) for event in events.Scalars(name)]


def thinned(points: Points, steps: int) -> list[float | None]:
    """(step, value) of a run of so many steps -> the mean of each of `PARTS` equal parts, fewer if there are
    fewer steps; None where it has none, empty if all have none. A step's last value counts; NaN is none."""
    last = {step: value for step, value in points if step < steps and not np.isnan(value)}
    parts = min(PARTS, steps) if last else 0
    places = np.fromiter(last, int) * parts // steps
    values = np.fromiter(last.values(), float)
    return [float(values[places == part].mean()) if (places == part).any() else None for part in range(parts)]
