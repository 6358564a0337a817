"""One run's questions by sieve, read back from the ledger."""

import sqlite3
from dataclasses import dataclass, field

# A place (step, teacher, row) counts once, by the last that became of it: a refusal or a failure that
# was made good on resume is history. Steps below zero are the handshake's.
_PLACES = """SELECT key, outcome, units, queries, MAX(rowid) FROM ledger
    WHERE run = ? AND step >= 0 GROUP BY step, teacher, row"""
_COUNTS = f"SELECT outcome, COUNT(*) FROM ({_PLACES}) GROUP BY outcome"
_ANSWERED = f"""SELECT key, MAX(units) AS units, COUNT(*) AS times FROM ({_PLACES})
    WHERE outcome NOT IN ('refused', 'failed') GROUP BY key"""
_SUMS = f"SELECT COUNT(*), COALESCE(SUM(units * times), 0), COALESCE(SUM(units), 0) FROM ({_ANSWERED})"
_CHECKED = "SELECT COALESCE(SUM(queries), 0) FROM ledger WHERE run = ? AND step < 0"


@dataclass(frozen=True)
class Sieves:
    """What became of a run's questions.

    Attributes:
        counts: outcome -> questions.
        distinct: different questions that were answered.
        units: of all answered questions, as a run without any cache would pay.
        distinct_units: of the different ones, as a run with a cache of its own would pay.
        checked: queries charged by the handshake.
    """

    counts: dict[str, int] = field(default_factory=dict)
    distinct: int = 0
    units: int = 0
    distinct_units: int = 0
    checked: int = 0


def sieves(database: sqlite3.Connection, run: str) -> Sieves:
    """Raises sqlite3.Error if the file has no ledger."""
    counts = dict(database.execute(_COUNTS, (run,)).fetchall())
    distinct, units, distinct_units = database.execute(_SUMS, (run,)).fetchone()
    (checked,) = database.execute(_CHECKED, (run,)).fetchone()
    return Sieves(counts, distinct, units, distinct_units, checked)
