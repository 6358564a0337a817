"""A suite's figure: a panel for each data set, of one of three kinds (`Figure.kind`)."""

from collections.abc import Callable, Iterable
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
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7d858f")
_MARKERS = "o^DsvPX"


def draw(panels: list[Panel], folder: Path) -> Path | None:
    """Writes figure.svg and figure.png; gives the SVG file, or None before there is anything to draw."""
    full = [panel for panel in panels if panel.entries]
    return save("figure", partial(figure, full), folder) if full else None


def figure(panels: list[Panel]) -> Drawing:
    kind = panels[0].suite.figure.kind
    kinds: dict[str, Callable[[Axes, Panel], None]] = {"dots": _dots, "lines": _lines, "weights": _weights}
    columns = min(ACROSS, len(panels))
    rows = -(-len(panels) // columns)
    height = 0.9 + 0.34 * max(len(panel.entries) for panel in panels) if kind == "dots" else 3.6
    drawing = Drawing(figsize=(WIDTH * columns, height * rows), layout="constrained")
    for axes, panel in zip(drawing.subplots(rows, columns, squeeze=False).flat, panels, strict=False):
        kinds[kind](axes, panel)
        axes.set_title(panel.data, loc="left", fontsize=11, fontweight="bold")
        axes.tick_params(length=3)
    for axes in list(drawing.axes)[len(panels) :]:
        axes.set_visible(False)
    _legend(drawing)
    return drawing


def _dots(axes: Axes, panel: Panel) -> None:
    """A line a row: its mean with one deviation, its seeds, and the best baseline as a level across."""
    baselines = panel.suite.baselines
    for place, entry in enumerate(panel.entries):
        colour = MUTED if entry.row.name in baselines else _COLOURS[0]
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
    for name, colour, marker in zip(names, cycle(_COLOURS), cycle(_MARKERS), strict=False):
        points = sorted(_points(name, entries, panel), key=itemgetter(0))
        _line(axes, name, points, COLOURS.get(name, colour), MARKERS.get(name, marker))
    for level, dashes in zip(wanted.levels, cycle([(1, 2), (6, 3)]), strict=False):
        if entry := panel.find(level):
            _level(axes, entry, dashes)
    _x_axis(axes, wanted.x, sorted({entry.row.settings[wanted.x] for entry in entries}))
    axes.set_ylabel(f"points over {wanted.gain_over}" if wanted.gain_over else f"{panel.metric} × 100")
    axes.grid(axis="y", color=MUTED, alpha=0.18, linewidth=0.8)


def _line(axes: Axes, name: str, points: list[tuple[float, Spread]], colour: str, marker: str) -> None:
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


def _weights(axes: Axes, panel: Panel) -> None:
    """A line a row: the mean λ_KL over the steps, averaged over seeds, with a band of one deviation."""
    for entry, colour in zip(panel.entries, cycle(_COLOURS), strict=False):
        runs = [run for run in entry.runs if run.series.get("kl_weight") and not run.stopped]
        if not runs:
            continue
        steps, values = _steps(runs[0]), np.array([run.series["kl_weight"] for run in runs], float)
        middle, deviation = values.mean(0), values.std(0, ddof=1) if len(runs) > 1 else np.zeros(len(steps))
        axes.plot(steps, middle, color=colour, linewidth=1.7, label=entry.row.name)
        axes.fill_between(
            steps, middle - deviation, middle + deviation, color=colour, alpha=0.15, linewidth=0
        )
    axes.set_xlabel("steps")
    axes.set_ylabel("mean λ_KL")
    axes.grid(axis="y", color=MUTED, alpha=0.18, linewidth=0.8)


def _steps(run: RunResult) -> np.ndarray:
    """The middle of each of the series' parts, in steps."""
    parts = len(run.series["kl_weight"])
    return (np.arange(parts) + 0.5) * run.steps / parts


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
        drawing.legend(handles, labels, loc="outside upper left", ncols=min(6, len(labels)), frameon=False)
