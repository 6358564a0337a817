"""A suite's figure: a panel or more for each data set, of one of four kinds (`Figure.kind`)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from operator import itemgetter
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from student_trainer.experiments.plots import COLOURS, INK, MARKERS, MUTED, PAPER, save
from student_trainer.experiments.suites.summary import Entry, Panel
from student_trainer.experiments.summary import Spread
from student_trainer.result import RunResult

WIDTH, ACROSS = 5.0, 2
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#7a5195", "#7d858f", "#56b4e9")
_MARKERS = "o^DsvPX*"
_HANDLE, _CHARACTER, _LINE = 0.55, 0.062, 0.18  # inches of a legend's entry
_NAMES = {
    "kl_weight": "mean λ_KL",
    "teacher_entropy": "teacher's entropy, nats",
    "centre_distance": "distance to the class centre",
    "distance_then": "distance to it, by the student then",
}


@dataclass(frozen=True)
class Picture:
    """One panel: what it is called, what draws it, and how high it is in inches."""

    title: str
    draw: Callable[[Axes], None]
    height: float = 3.6


def draw(panels: list[Panel], folder: Path) -> Path | None:
    """Writes figure.svg and figure.png; gives the SVG file, or None before there is anything to draw."""
    drawn = [picture for panel in panels if panel.entries for picture in pictures(panel)]
    return save("figure", partial(figure, drawn), folder) if drawn else None


def figure(drawn: list[Picture]) -> Drawing:
    columns = min(ACROSS, len(drawn))
    rows = -(-len(drawn) // columns)
    height = max(picture.height for picture in drawn)
    drawing = Drawing(figsize=(WIDTH * columns, height * rows), layout="constrained")
    for axes, picture in zip(drawing.subplots(rows, columns, squeeze=False).flat, drawn, strict=False):
        picture.draw(axes)
        axes.set_title(picture.title, loc="left", fontsize=11, fontweight="bold")
        axes.tick_params(length=3)
    for axes in list(drawing.axes)[len(drawn) :]:
        axes.set_visible(False)
    _legend(drawing)
    return drawing


def pictures(panel: Panel) -> list[Picture]:
    """Of one data set."""
    match panel.suite.figure.kind:
        case "dots":
            return [Picture(panel.data, partial(_dots, panel=panel), 0.9 + 0.34 * len(panel.entries))]
        case "lines":
            return [Picture(panel.data, partial(_lines, panel=panel))]
        case "steps":
            return [Picture(panel.data, partial(_over_steps, panel=panel, y=y)) for y in panel.suite.figure.y]
        case "map":
            mapped = [
                (entry, run) for entry in panel.entries for run in entry.runs[:1] if "map_x" in run.series
            ]
            return [Picture(f"{panel.data}, {e.row.name}", partial(_map, run=run), 4.4) for e, run in mapped]


def _dots(axes: Axes, panel: Panel) -> None:
    """A line a row: its mean with one deviation, its seeds, and the best baseline as a level across."""
    for place, entry in enumerate(panel.entries):
        colour = MUTED if panel.suite.is_baseline(entry.row) else _COLOURS[0]
        points, deviation = list(entry.points.values()), entry.score.deviation or 0
        axes.scatter(points, [place] * len(points), s=14, color=colour, alpha=0.35, linewidth=0)
        axes.errorbar(entry.score.mean, place, xerr=deviation, fmt="o", color=colour, ms=6, capsize=3)
    if best := panel.best_baseline():
        axes.axvline(best.score.mean, color=MUTED, linewidth=0.9, dashes=(4, 3))
    axes.set_yticks(range(len(panel.entries)), [entry.row.name for entry in panel.entries])
    axes.invert_yaxis()
    axes.set_xlabel(f"{panel.metric} × 100")
    axes.grid(axis="x", color=MUTED, alpha=0.18, linewidth=0.8)


def _lines(axes: Axes, panel: Panel) -> None:
    """A line for each of the suite's lines over its setting x, and the levels across."""
    wanted = panel.suite.figure
    entries = [entry for entry in panel.entries if entry.row.name not in wanted.levels]
    names = dict.fromkeys(entry.row.line for entry in entries if entry.row.line != wanted.gain_over)
    looks = zip(cycle(_COLOURS), cycle(_MARKERS), strict=True)
    for number, (name, (colour, marker)) in enumerate(zip(names, looks, strict=False)):
        points = sorted(_points(name, entries, panel), key=itemgetter(0))
        style = "-" if number < len(_COLOURS) else "--"  # the colours come again
        _line(axes, name, points, COLOURS.get(name, colour), MARKERS.get(name, marker), style)
    for level, dashes in zip(wanted.levels, cycle([(1, 2), (6, 3)]), strict=False):
        if entry := panel.find(level):
            _level(axes, entry, dashes)
    _x_axis(axes, wanted.x, sorted({entry.row.settings[wanted.x] for entry in entries}))
    if wanted.gain_over:
        axes.axhline(0, color=INK, linewidth=0.9)
    axes.set_ylabel(f"{panel.metric} × 100" + (f", over {wanted.gain_over}" if wanted.gain_over else ""))
    axes.grid(axis="y", color=MUTED, alpha=0.18, linewidth=0.8)


def _line(
    axes: Axes, name: str, points: list[tuple[float, Spread]], colour: str, marker: str, style: str
) -> None:
    """Mean and one deviation over x."""
    axes.errorbar(
        [x for x, _ in points],
        [spread.mean for _, spread in points],
        [spread.deviation or 0 for _, spread in points],
        color=colour,
        marker=marker,
        markersize=6,
        markeredgecolor=PAPER,
        linewidth=1.7,
        linestyle=style,
        elinewidth=1.1,
        capsize=3,
        label=name,
    )


def _points(name: str, entries: list[Entry], panel: Panel) -> Iterable[tuple[float, Spread]]:
    """(x, score or gain) of a line's entries."""
    wanted = panel.suite.figure
    for entry in entries:
        if entry.row.line != name:
            continue
        x = entry.row.settings[wanted.x]
        if wanted.gain_over is None:
            yield x, entry.score
            continue
        bases = (e for e in entries if e.row.line == wanted.gain_over and e.row.settings[wanted.x] == x)
        base = next(bases, None)
        if base and (gain := entry.ahead_of(base)):
            yield x, Spread.of(gain)


def _over_steps(axes: Axes, panel: Panel, y: str) -> None:
    """A line a row: what its runs were like at each step."""
    for entry, colour in zip(panel.entries, cycle(_COLOURS), strict=False):
        runs = [run for run in entry.runs if run.series.get(y) and not run.stopped]
        if runs:
            _course(axes, entry.row.name, runs, y, COLOURS.get(entry.row.name, colour))
    axes.set_xlabel("steps")
    axes.set_ylabel(_NAMES[y])
    axes.grid(axis="y", color=MUTED, alpha=0.18, linewidth=0.8)


def _course(axes: Axes, name: str, runs: list[RunResult], y: str, colour: str) -> None:
    """The mean over runs, with a band of one sample deviation."""
    values = np.ma.masked_invalid(np.array([run.series[y] for run in runs], float))  # where nothing was asked
    parts = values.shape[1]
    steps = (np.arange(parts) + 0.5) * runs[0].steps / parts
    middle = values.mean(0)
    deviation = values.std(0, ddof=1) if len(runs) > 1 else np.zeros(parts)
    axes.plot(steps, middle, color=colour, linewidth=1.7, label=name)
    axes.fill_between(steps, middle - deviation, middle + deviation, color=colour, alpha=0.15, linewidth=0)


def _map(axes: Axes, run: RunResult) -> None:
    """A dot a training row in its class' colour; a cross on those that the last epoch asked about."""
    across, up, classes, chosen = (
        np.array(run.series[f"map_{name}"], float) for name in ("x", "y", "class", "selected")
    )
    for label in np.unique(classes):
        own, colour = classes == label, _COLOURS[int(label) % len(_COLOURS)] if label >= 0 else MUTED
        name = f"class {label:.0f}" if label >= 0 else "no label"
        axes.scatter(across[own], up[own], s=9, color=colour, alpha=0.45, linewidth=0, label=name)
    asked = chosen > 0
    axes.scatter(across[asked], up[asked], s=26, marker="x", color=INK, linewidth=1, label="asked about")
    axes.set_xticks([])
    axes.set_yticks([])


def _level(axes: Axes, entry: Entry, dashes: tuple[int, int]) -> None:
    mean, deviation = entry.score.mean, entry.score.deviation or 0
    axes.axhspan(mean - deviation, mean + deviation, color=MUTED, alpha=0.1, linewidth=0)
    axes.axhline(mean, color=INK, linewidth=1.1, dashes=dashes, label=entry.row.name)


def _x_axis(axes: Axes, name: str, values: list[float]) -> None:
    """Ticks where there are points; even spaces for what was doubled from each to the next."""
    axes.set_xlabel({"ratio": "r", "temperature": "τ"}.get(name, name.replace("_", " ")))
    if values and values[0] > 0 and values[-1] / values[0] > 8:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))


def _legend(drawing: Drawing) -> None:
    """One for all panels, each name once."""
    handles, labels = [], []
    for axes in drawing.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            if label not in labels:
                handles.append(handle)
                labels.append(label)
    if labels:
        widest = _HANDLE + _CHARACTER * max(map(len, labels))
        columns = max(1, int(drawing.get_figwidth() / widest))
        drawing.set_figheight(drawing.get_figheight() + _LINE * -(-len(labels) // columns))
        look = {"ncols": columns, "fontsize": "small", "frameon": False}
        drawing.legend(handles, labels, loc="outside upper left", **look)
