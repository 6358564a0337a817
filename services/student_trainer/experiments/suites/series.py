"""What a run wrote at each step, as short as a figure needs it: kept in its result, as the folder may go."""

from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

DRAWN = ("kl_weight",)
PARTS = 100


def read(output: Path, steps: int) -> dict[str, list[float | None]]:
    """Of a run's folder: each drawn scalar that has a value at any step."""
    if not (output / "scalars").exists():
        return {}
    events = EventAccumulator(str(output / "scalars"), size_guidance={"scalars": 0}).Reload()
    written = set(events.Tags()["scalars"]) & set(DRAWN)
    found = {name: [(event.step, event.value) for event in events.Scalars(name)] for name in sorted(written)}
    return {name: thinned(points, steps) for name, points in found.items() if _said(points)}


def thinned(points: list[tuple[int, float]], steps: int) -> list[float | None]:
    """(step, value) of a run of so many steps -> the mean of each of `PARTS` equal parts, fewer if there are
    fewer steps; None where it has none. A step's last value counts, and NaN is no value."""
    parts = min(PARTS, steps)
    last = {step: value for step, value in points if step < steps and not np.isnan(value)}
    places = np.fromiter(last, int) * parts // steps
    values = np.fromiter(last.values(), float)
    return [float(values[places == part].mean()) if (places == part).any() else None for part in range(parts)]


def _said(points: list[tuple[int, float]]) -> bool:
    return any(not np.isnan(value) for _, value in points)
