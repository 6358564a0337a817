"""Two pictures of a grid: what a budget buys (the curve), and what the month's bill would be.

Drawn on a figure of their own, without pyplot's global state. An SVG has the same bytes whenever it is
drawn from the same runs.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from matplotlib.typing import RcKeyType

from student_trainer.experiments.summary import Grid, Line, bills
from student_trainer.experiments.table import usd

INK, MUTED, PAPER = "#1c2126", "#6b737c", "#ffffff"  # the report's page puts its own in their place
# Okabe and Ito's colours, told apart by colour-blind readers; each strategy keeps its own, and its marker.
COLOURS = {"random": "#7d858f", "entropy": "#0072b2", "margin": "#d55e00", "lc": "#009e73"}
MARKERS = {"random": "s", "entropy": "o", "margin": "^", "lc": "D"}
BILLS = ("#0072b2", "#e69f00")

_STYLE: dict[RcKeyType, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
    "font.size": 10,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "svg.fonttype": "none",  # text stays text: small, selectable, in the page's own font
}


def draw(grid: Grid, folder: Path) -> dict[str, Path]:
    """Writes curve.svg and curve.png, and bill.svg and bill.png where dollars are known.

    Returns:
        The SVG file of each picture, by name.
    """
    pictures: dict[str, Callable[[Grid], Figure]] = {"curve": curve}
    if bills(grid):
        pictures["bill"] = bill
    return {name: save(name, partial(picture, grid), folder) for name, picture in pictures.items()}


def curve(grid: Grid) -> Figure:
    """Score against distinct queries, a line a strategy; no KD and full KD as levels."""
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for strategy in dict.fromkeys(line.strategy for line in grid.selections):
        _strategy(axes, [line for line in grid.selections if line.strategy == strategy])
    for strategy, dashes in (("none", (1, 2)), ("all", (6, 3))):
        if line := grid.find(strategy):
            _level(axes, line, dashes)
    _budget_axis(axes, grid)
    axes.set_ylabel(f"{grid.metric} × 100")
    axes.grid(axis="y", color=MUTED, alpha=0.18, linewidth=0.8)
    axes.tick_params(length=3)
    if grid.selections:
        _legend(axes)
    return figure


def bill(grid: Grid) -> Figure:
    """The bill of a full pass and of each ratio, without a cache and with one."""
    bars = bills(grid)
    figure = Figure(figsize=(7.6, 0.9 + 0.62 * len(bars)), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(bars))
    for side, (label, colour) in enumerate(zip(("no cache", "with a cache"), BILLS, strict=True)):
        drawn = axes.barh(
            [place + 0.19 * (2 * side - 1) for place in places],
            [amounts[side] for amounts in bars.values()],
            height=0.34,
            color=colour,
            label=label,
        )
        axes.bar_label(drawn, [usd(amounts[side]) for amounts in bars.values()], padding=4)
    axes.set_yticks(places, bars)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.16 * max(max(amounts) for amounts in bars.values()) or 1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"${value:,.4g}"))
    axes.tick_params(axis="y", length=0)
    axes.spines.left.set_visible(False)
    _legend(axes)
    return figure


def save(name: str, picture: Callable[[], Figure], folder: Path) -> Path:
    """Draws it, and writes NAME.svg and NAME.png; the path of the SVG."""
    path = folder / f"{name}.svg"
    silent = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context(_STYLE | {"svg.hashsalt": name}):
        figure = picture()
        figure.savefig(path, metadata=silent)
        figure.savefig(path.with_suffix(".png"), dpi=160, metadata={"Software": None})
    return path


def _legend(axes: Axes) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, borderaxespad=0.2)


def _strategy(axes: Axes, lines: list[Line]) -> None:
    name, strategy = lines[0].name, lines[0].strategy
    budgets, scores = [_budget(line) for line in lines], [line.score.mean for line in lines]
    colour, marker = COLOURS[strategy], MARKERS[strategy]
    deviations = [line.score.deviation or 0 for line in lines]
    axes.errorbar(budgets, scores, deviations, fmt="none", color=colour, elinewidth=1.1, capsize=3, zorder=3)
    axes.plot(
        budgets,
        scores,
        color=colour,
        marker=marker,
        markersize=7,
        markeredgecolor=PAPER,
        linewidth=1.8,
        label=name,
        zorder=4,
    )


def _level(axes: Axes, line: Line, dashes: tuple[int, int]) -> None:
    """A line across at the mean, a band of one deviation, its name at the right edge."""
    level, deviation = line.score.mean, line.score.deviation or 0
    axes.axhspan(level - deviation, level + deviation, color=MUTED, alpha=0.1, linewidth=0)
    axes.axhline(level, color=INK, linewidth=1.1, dashes=dashes)
    axes.annotate(
        f"{line.name} {level:.1f}",
        (1, level),
        xycoords=("axes fraction", "data"),
        xytext=(6, 0),
        textcoords="offset points",
        va="bottom" if line.strategy == "all" else "top",  # they may lie close: one above, one below
    )
    if line.strategy == "all":
        axes.plot(_budget(line), level, marker="*", markersize=12, color=INK, markeredgecolor=PAPER, zorder=4)


def _budget_axis(axes: Axes, grid: Grid) -> None:
    axes.set_xscale("log")
    axes.set_xlabel("distinct queries a run: charged with a cache")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    budgets = [_budget(line) for line in grid.lines if line.strategy != "none"]
    if budgets:
        axes.set_xlim(min(budgets) / 1.25, max(budgets) * 1.25)
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.08 * (high - low), high)  # room for the ratios under the error bars
    for ratio in dict.fromkeys(line.ratio for line in grid.selections):
        middle = mean(_budget(line) for line in grid.selections if line.ratio == ratio)
        axes.annotate(
            f"r = {ratio:.4g}", (middle, 0.02), xycoords=("data", "axes fraction"), ha="center", color=MUTED
        )


def _budget(line: Line) -> float:
    return max(1, line.mean(lambda run: run.questions.distinct) or 0)
