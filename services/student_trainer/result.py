"""What one run came to: its score and its account. Written as `result.json`, a row of every table."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class Money:
    """The bill of four ways to distil (facts of the price book, one calendar month), in dollars.

    None where no price book was named. `full` asks about every instance in every epoch, `selected`
    what this run asked; `cached` pays for each distinct question once.
    """

    full: float | None = None
    full_cached: float | None = None
    selected: float | None = None
    selected_cached: float | None = None


@dataclass(frozen=True)
class Questions:
    """The sieves that a question passes, counted over the run.

    Attributes:
        seen: instances that passed through the loop, epochs counted.
        asked: selected among them.
        distinct: different questions among the asked: what is charged with a cache, run alone.
        kept: answered from the trainer's own disk.
        joined: identical to another question of the same step.
        cached: answered by the server's cache, free.
        charged: paid for in this run.
        refused: not asked because the budget was spent.
        failed: without an answer in the end.
        checked: charged by the handshake, outside of all the others.
    """

    seen: int
    asked: int = 0
    distinct: int = 0
    kept: int = 0
    joined: int = 0
    cached: int = 0
    charged: int = 0
    refused: int = 0
    failed: int = 0
    checked: int = 0


@dataclass(frozen=True)
class Stage:
    """One of a run's stages: steps, questions, units of the answered ones; dollars without a cache and with
    one, None where no price book was named."""

    steps: int
    questions: Questions
    units: int
    usd: float | None
    usd_cached: float | None


@dataclass(frozen=True)
class Part:
    """One of a run's teachers: its own questions, and its part of the bill at its own tariff.

    Attributes:
        name: as the teacher calls itself.
        fingerprint: of it.
        tariff: price book and feature.
        questions: that it answered.
        distinct: different ones among them.
        charged: queries that this run paid for.
        units: of all answered.
        usd: without a cache; None where no price book was named. Teachers at one tariff share its tiers:
            their bill is split by units.
        usd_cached: with one.
        check_rows: validation rows that it was asked about first.
        check_scores: its own scores on these; empty where it was asked about none.
    """

    name: str
    fingerprint: str
    tariff: str
    questions: int
    distinct: int
    charged: int
    units: int
    usd: float | None
    usd_cached: float | None
    check_rows: int = 0
    check_scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RunResult:
    """One training run.

    Attributes:
        strategy: `none` (no teacher), `all` (full KD), or the selection strategy.
        ratio: the r of §3.2; 0 without a teacher.
        metric: name of the score reported first.
        scores: accuracy, f1 and matthews on the validation set, 0 to 1 (matthews -1 to 1).
        steps: done; fewer than planned when the budget stopped the run.
        stopped: whether it did.
        flops: per instance seen, in GFLOPs, under the name of each formula (costs/flops.py).
        scheme: the formula that this run followed.
        seconds: wall time of the loop in this process, evaluation left out.
        waited: of these, waiting for the teacher.
        stages: what each asked, by name, of a run with TinyBERT's general stage; empty for any other.
        teachers: what each was asked, the smallest first; none of a run from before they were told apart.
        series: a scalar over the run, by name: its mean in each of some equal parts; None without a value.
    """

    strategy: str
    ratio: float
    seed: int
    metric: str
    scores: dict[str, float]
    steps: int
    stopped: bool
    questions: Questions
    usd: Money
    flops: dict[str, float]
    scheme: str
    seconds: float
    waited: float
    stages: dict[str, Stage] = field(default_factory=dict)
    teachers: list[Part] = field(default_factory=list)
    series: dict[str, list[float | None]] = field(default_factory=dict)

    @property
    def score(self) -> float:
        return self.scores[self.metric]

    def save(self, path: Path) -> None:
        write_json(path, asdict(self))

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Self:
        stages = {
            name: Stage(**stage | {"questions": Questions(**stage["questions"])})
            for name, stage in row.get("stages", {}).items()
        }
        nested = ("questions", "usd", "stages", "teachers")
        return cls(
            **{name: value for name, value in row.items() if name not in nested},
            questions=Questions(**row["questions"]),
            usd=Money(**row["usd"]),
            stages=stages,
            teachers=[Part(**part) for part in row.get("teachers", [])],
        )


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes beside the path, then moves it there: a reader finds the whole file or none."""
    unfinished = path.with_suffix(".writing")
    unfinished.write_text(json.dumps(content, indent=2) + "\n")
    unfinished.replace(path)
