"""One run's questions by sieve, read back from the ledger."""

import sqlite3
from dataclasses import dataclass, field

# A place (step, teacher, row) counts once, by the last that became of it: a refusal or a failure that
# was made good on resume is history. Steps below zero are the handshake's.
_STEPS = "run = :run AND step >= :first AND step < :end"
_PLACES = f"""SELECT step, row, teacher, key, outcome, units, queries, MAX(rowid) FROM ledger
    WHERE {_STEPS} GROUP BY step, teacher, row"""
_COUNTS = f"SELECT outcome, COUNT(*) FROM ({_PLACES}) GROUP BY outcome"
_INSTANCES = f"SELECT COUNT(*) FROM (SELECT DISTINCT step, row FROM ({_PLACES}))"
_ANSWERED = f"""SELECT teacher, MAX(units) AS units, COUNT(*) AS times, SUM(queries) AS paid FROM ({_PLACES})
    WHERE outcome NOT IN ('refused', 'failed') GROUP BY teacher, key"""
_SUMS = f"""SELECT teacher, SUM(times), COUNT(*), SUM(units * times), SUM(units), SUM(paid)
    FROM ({_ANSWERED}) GROUP BY teacher"""
LAST = 2**62  # beyond any step
_CHECKED = "SELECT COALESCE(SUM(queries), 0) FROM ledger WHERE run = ? AND step < 0"


@dataclass(frozen=True)
class Answered:
    """One teacher's answers to a run.

    Attributes:
        questions: answered.
        distinct: different ones among them.
        units: of all, as a run without any cache would pay.
        distinct_units: of the different ones, as a run with a cache of its own would pay.
        charged: queries that this run paid for.
    """

    questions: int = 0
    distinct: int = 0
    units: int = 0
    distinct_units: int = 0
    charged: int = 0


@dataclass(frozen=True)
class Sieves:
    """What became of a run's questions.

    Attributes:
        counts: outcome -> questions.
        instances: that were asked about, of whomever; a soft adoption asks two questions about one.
        answered: by the teacher's fingerprint.
        checked: queries charged by the handshake.
    """

    counts: dict[str, int] = field(default_factory=dict)
    instances: int = 0
    answered: dict[str, Answered] = field(default_factory=dict)
    checked: int = 0

    def by(self, teacher: str) -> Answered:
        return self.answered.get(teacher, Answered())

    @property
    def distinct(self) -> int:
        """Different questions that were answered."""
        return sum(answered.distinct for answered in self.answered.values())


def sieves(database: sqlite3.Connection, run: str, first: int = 0, end: int = LAST) -> Sieves:
    """Of the steps from `first` to before `end`. Raises sqlite3.Error if the file has no ledger."""
    asked = {"run": run, "first": first, "end": end}
    counts = dict(database.execute(_COUNTS, asked).fetchall())
    (instances,) = database.execute(_INSTANCES, asked).fetchone()
    answered = {teacher: Answered(*sums) for teacher, *sums in database.execute(_SUMS, asked)}
    (checked,) = database.execute(_CHECKED, (run,)).fetchone()
    return Sieves(counts, instances, answered, checked)
