"""Runs put together over their seeds: what the table, the curve and the report all show."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Self

from student_trainer.result import Money, RunResult

ORDER = ("none", "random", "entropy", "margin", "lc", "all")
NAMES = {"none": "no KD", "random": "Random", "all": "full KD"}
FULL_PASS = "full pass"
LEAST_GAIN = 1.0  # points of full KD over no KD below which no share of it is told


@dataclass(frozen=True)
class Spread:
    """A mean and the sample deviation (n - 1) around it; None where n is 1."""

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        return cls(mean(values), stdev(values) if len(values) > 1 else None)


class Runs:
    """Runs of one recipe, one a seed. Scores are in points: 100 is perfect."""

    runs: tuple[RunResult, ...]

    @property
    def points(self) -> dict[int, float]:
        """Score by seed."""
        return {run.seed: 100 * run.score for run in self.runs}

    @property
    def score(self) -> Spread:
        return Spread.of(list(self.points.values()))

    @property
    def stopped(self) -> bool:
        """Whether the budget ended a run."""
        return any(run.stopped for run in self.runs)

    def mean(self, figure: Callable[[RunResult], float | None]) -> float | None:
        """Mean of a run's figure; None where no run has it."""
        values = [value for value in map(figure, self.runs) if value is not None]
        return mean(values) if values else None

    def ahead_of(self, other: "Runs") -> list[float]:
        """Points above the other, of each seed that both have."""
        ours, theirs = self.points, other.points
        return [ours[seed] - theirs[seed] for seed in ours if seed in theirs]


@dataclass(frozen=True)
class Line(Runs):
    """One strategy at one ratio."""

    strategy: str
    ratio: float
    runs: tuple[RunResult, ...]

    @property
    def name(self) -> str:
        return NAMES.get(self.strategy, self.strategy)


def distinct(line: Runs) -> float:
    """Different questions of a run, on average: what it is charged with a cache of its own."""
    return line.mean(lambda run: run.questions.distinct) or 0


def kept(line: Runs, none: Runs, full: Runs) -> float | None:
    """Share of full KD's gain over no KD that a line keeps, on the seeds that all three have.

    None where there is no such seed, or full KD gains less than a point, or than the gain's own
    deviation: a share of noise says nothing.
    """
    seeds = line.points.keys() & none.points.keys() & full.points.keys()
    if not seeds:
        return None
    gain = Spread.of([full.points[seed] - none.points[seed] for seed in seeds])
    own = mean(line.points[seed] - none.points[seed] for seed in seeds)
    return own / gain.mean if gain.mean >= max(LEAST_GAIN, gain.deviation or 0) else None


@dataclass(frozen=True)
class Grid:
    """The lines in the order in which they are read: no KD, each ratio with Random first, full KD."""

    metric: str
    lines: tuple[Line, ...]

    @classmethod
    def of(cls, results: Iterable[RunResult]) -> Self:
        groups: dict[tuple[str, float], list[RunResult]] = {}
        for result in results:
            groups.setdefault((result.strategy, result.ratio), []).append(result)
        lines = [Line(*key, tuple(runs)) for key, runs in groups.items()]
        lines.sort(key=lambda line: (_place(line), line.ratio, ORDER.index(line.strategy)))
        return cls(lines[0].runs[0].metric, tuple(lines))

    def find(self, strategy: str, ratio: float | None = None) -> Line | None:
        """The line of a strategy, at a ratio where there are several."""
        fits = (x for x in self.lines if x.strategy == strategy and ratio in (None, x.ratio))
        return next(fits, None)

    @property
    def full(self) -> Line | None:
        return self.find("all")

    @property
    def selections(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if line.strategy not in ("none", "all"))

    def kept(self, line: Line) -> float | None:
        """Share of full KD's gain that a line keeps; None before both ends are there, or it is noise."""
        none = self.find("none")
        return kept(line, none, self.full) if none and self.full else None

    def over_random(self, line: Line) -> Spread | None:
        """Points above Random at the same ratio, seed by seed; None for Random, no KD and full KD."""
        random = self.find("random", line.ratio)
        if random is None or line not in self.selections or line is random:
            return None
        ahead = line.ahead_of(random)
        return Spread.of(ahead) if ahead else None


def bills(grid: Grid) -> dict[str, tuple[float, float]]:
    """Dollars without and with a cache: of a full pass, then of each ratio, a mean over its runs.

    Empty where no price book was named.
    """
    found = {FULL_PASS: _mean_bill(grid.lines, lambda usd: (usd.full, usd.full_cached))}
    for ratio in sorted({line.ratio for line in grid.selections}, reverse=True):
        lines = [line for line in grid.selections if line.ratio == ratio]
        found[f"r = {ratio:.4g}"] = _mean_bill(lines, lambda usd: (usd.selected, usd.selected_cached))
    return {name: bill for name, bill in found.items() if bill is not None}


def _mean_bill(
    lines: Iterable[Line], figures: Callable[[Money], tuple[float | None, float | None]]
) -> tuple[float, float] | None:
    known = [
        (plain, cached)
        for line in lines
        for plain, cached in (figures(run.usd) for run in line.runs)
        if plain is not None and cached is not None
    ]
    return (mean(plain for plain, _ in known), mean(cached for _, cached in known)) if known else None


def _place(line: Line) -> int:
    return {"none": 0, "all": 2}.get(line.strategy, 1)
