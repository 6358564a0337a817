"""A suite's results by data set and row, set against the best baseline and the paper's score."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean
from typing import Any

from scipy import stats  # type: ignore[import-untyped]

from student_trainer.experiments.results import Results
from student_trainer.experiments.suites.plan import Plan, name_of
from student_trainer.experiments.suites.suite import Row, Suite
from student_trainer.experiments.summary import Runs, Spread, distinct, kept
from student_trainer.result import RunResult

ALPHA = 0.05
TEST = "two-sided paired t-test over the seeds (scipy.stats.ttest_rel)"


@dataclass(frozen=True)
class Entry(Runs):
    """One row on one data set."""

    row: Row
    runs: tuple[RunResult, ...]


@dataclass(frozen=True)
class Comparison:
    """A row against the best baseline, seed by seed, in points; p is None where there is no test."""

    baseline: str
    ahead: Spread
    p: float | None

    @property
    def significant(self) -> bool:
        """Better, that is; as the paper marks it."""
        return self.p is not None and self.p < ALPHA and self.ahead.mean > 0


@dataclass(frozen=True)
class Panel:
    """One data set: an entry for each row that has a run, in the order of the suite.

    Attributes:
        data: its name.
        suite: what is compared.
        entries: of rows with at least one run.
        metric: of all of them; empty before the first run.
    """

    data: str
    suite: Suite
    entries: tuple[Entry, ...]

    @property
    def metric(self) -> str:
        return self.entries[0].runs[0].metric if self.entries else ""

    def find(self, name: str | None) -> Entry | None:
        return next((entry for entry in self.entries if entry.row.name == name), None)

    @property
    def none(self) -> Entry | None:
        return self.find(self.suite.no_kd)

    @property
    def full(self) -> Entry | None:
        return self.find(self.suite.full_kd)

    def best_baseline(self, place: Any = None) -> Entry | None:
        """Of those at this place, where they have one."""
        baselines = (entry for entry in self.entries if self.suite.is_baseline(entry.row))
        found = (entry for entry in baselines if self.suite.place_of(entry.row) == place)
        return max(found, key=lambda entry: entry.score.mean, default=None)

    def against_baseline(self, entry: Entry) -> Comparison | None:
        """None for baselines, and where no seed has both."""
        best = self.best_baseline(self.suite.place_of(entry.row))
        if best is None or self.suite.is_baseline(entry.row) or not (ahead := entry.ahead_of(best)):
            return None
        return Comparison(best.row.name, Spread.of(ahead), paired_p(ahead))

    def kept(self, entry: Entry) -> float | None:
        """Share of full KD's gain over no KD."""
        return kept(entry, self.none, self.full) if self.none and self.full else None

    def enough(self, share: float) -> float | None:
        """A share of full KD's score, in points; None before full KD is there, or if it is no use."""
        full = self.full
        return share * full.score.mean if full and full.score.mean > 0 else None

    def cheapest(self, line: str, enough: float) -> Entry | None:
        """The line's entry with the fewest different questions, one at least, that reaches so many points."""
        reached = [entry for entry in self.entries if entry.row.line == line and entry.score.mean >= enough]
        return min(filter(distinct, reached), key=distinct, default=None)


def panels(plan: Plan, results: Results) -> list[Panel]:
    """Of each data set."""

    def entry(row: Row, data: str) -> Entry:
        found = (results.get(name_of(data, row, seed)) for seed in plan.seeds)
        return Entry(row, tuple(result for result in found if result is not None))

    def entries(data: str) -> Iterable[Entry]:
        return (entry(row, data) for row in plan.suite.rows)

    return [Panel(data, plan.suite, tuple(one for one in entries(data) if one.runs)) for data in plan.data]


def paired_p(ahead: list[float]) -> float | None:
    """p of differences over seeds; None of one seed, or if all are the same: then there is no spread."""
    if len(ahead) < 2 or max(ahead) - min(ahead) < 1e-9:
        return None
    return float(stats.ttest_rel(ahead, [0.0] * len(ahead)).pvalue)


def over_data(panels: list[Panel], row: Row) -> tuple[float | None, float | None]:
    """Means over the data sets of ours and of the paper's scores; None unless each has one."""
    entries = [panel.find(row.name) for panel in panels]
    ours = [entry.score.mean for entry in entries if entry]
    theirs = [row.published[panel.data] for panel in panels if panel.data in row.published]
    whole = [len(scores) == len(panels) > 1 for scores in (ours, theirs)]
    return mean(ours) if whole[0] else None, mean(theirs) if whole[1] else None
