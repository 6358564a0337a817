"""The account of every question: append-only, one row a question, money exact to the last digit."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

from student_trainer.costs.database import create, transaction
from teacher_api.prices import Tariff

Outcome = Literal["charged", "cached", "kept", "joined", "refused", "failed"]

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS ledger (
        run TEXT NOT NULL, step INTEGER NOT NULL, row INTEGER NOT NULL, teacher TEXT NOT NULL,
        key BLOB NOT NULL, outcome TEXT NOT NULL, characters INTEGER NOT NULL, units INTEGER NOT NULL,
        queries INTEGER NOT NULL, usd TEXT NOT NULL, account TEXT NOT NULL, tariff TEXT NOT NULL,
        at TEXT NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS ledger_place ON ledger (run, step, teacher, row)",
    """CREATE TRIGGER IF NOT EXISTS ledger_no_update BEFORE UPDATE ON ledger
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    """CREATE TRIGGER IF NOT EXISTS ledger_no_delete BEFORE DELETE ON ledger
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    # Running sums of the ledger's paid rows, so that a budget is read without adding a million rows.
    """CREATE TABLE IF NOT EXISTS charged (
        account TEXT NOT NULL, tariff TEXT NOT NULL, month TEXT NOT NULL,
        queries INTEGER NOT NULL, units INTEGER NOT NULL, usd TEXT NOT NULL,
        PRIMARY KEY (account, tariff, month)) WITHOUT ROWID""",
)

# A resumed run redoes steps: what cost nothing and stands here already is not written again. What was
# paid is always written, for no reason may hide a charge.
_INSERT = """INSERT INTO ledger SELECT :run, :step, :row, :teacher, :key, :outcome, :characters, :units,
    :queries, :usd, :account, :tariff, :at
    WHERE :queries > 0 OR NOT EXISTS (
        SELECT 1 FROM ledger WHERE run = :run AND step = :step AND teacher = :teacher AND row = :row
        AND (outcome = :outcome OR outcome NOT IN ('refused', 'failed')))"""

# What became in the end of each question of some of another run's steps.
_AUTHORS = """SELECT *, MAX(rowid) FROM ledger WHERE run = :author AND step >= :first AND step < :end
    GROUP BY step, teacher, row"""
_ANSWERED = f"SELECT COUNT(*) FROM ({_AUTHORS}) WHERE outcome NOT IN ('refused', 'failed')"
_TAKE_OVER = f"""INSERT INTO ledger
    SELECT :run, step, row, teacher, key, 'kept', characters, units, 0, '0', :account, tariff, :at
    FROM ({_AUTHORS}) AS theirs WHERE NOT EXISTS (
        SELECT 1 FROM ledger AS own WHERE own.run = :run AND own.step = theirs.step
        AND own.teacher = theirs.teacher AND own.row = theirs.row
        AND own.outcome NOT IN ('refused', 'failed'))"""
_STEPS_AT_ONCE = 500  # of a transaction: others wait for its end

# A refusal or a failure that cost nothing and was made good later is history, not a question of its own.
_TOTALS = """SELECT teacher, outcome, COUNT(*), COUNT(DISTINCT key), SUM(characters), SUM(units), SUM(queries)
    FROM ledger AS this WHERE run = ? AND NOT (
        outcome IN ('refused', 'failed') AND queries = 0 AND EXISTS (
            SELECT 1 FROM ledger AS good WHERE good.run = this.run AND good.step = this.step
            AND good.teacher = this.teacher AND good.row = this.row
            AND good.outcome NOT IN ('refused', 'failed')))
    GROUP BY teacher, outcome ORDER BY teacher, outcome"""


@dataclass(frozen=True, slots=True)
class Question:
    """One row of the data set put to a teacher: its number, content key and size in Unicode characters."""

    row: int
    key: bytes
    characters: int


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of a question, and the queries that the teacher charged for it."""

    question: Question
    outcome: Outcome
    queries: int = 0


@dataclass(frozen=True, slots=True)
class Charged:
    """Queries, units and dollars that were paid."""

    queries: int = 0
    units: int = 0
    usd: Decimal = Decimal(0)

    def __add__(self, other: "Charged") -> "Charged":
        return Charged(self.queries + other.queries, self.units + other.units, self.usd + other.usd)


FREE = Charged()


@dataclass(frozen=True)
class Total:
    """One run's questions to one teacher that ended alike. `units` is their size, paid for or saved."""

    teacher: str
    outcome: Outcome
    count: int
    distinct: int
    characters: int
    units: int
    queries: int
    usd: Decimal


class Ledger:
    """Writes one run's questions to one teacher, on one account, at one tariff."""

    def __init__(
        self, database: sqlite3.Connection, *, run: str, teacher: str, account: str, tariff: Tariff
    ) -> None:
        self.database, self.run, self.teacher = database, run, teacher
        self.account, self.tariff = account, tariff
        create(database, *_SCHEMA)

    def write(self, step: int, entries: Iterable[Entry], at: datetime) -> None:
        """Appends the entries; the caller holds the transaction.

        Each paid question is priced as the next one of its calendar month (UTC) on this account and tariff.
        """
        month = month_of(at)
        start = paid = self.charged(self.tariff.name, month)
        rows = []
        for entry in entries:
            units = self.tariff.units(entry.question.characters)
            price = self._price(units, entry.queries, before=paid.units)
            rows.append(_columns(entry, units, price.usd))
            paid += price
        self._insert(step, rows, at)
        if paid != start:
            self.database.execute(
                "INSERT OR REPLACE INTO charged VALUES (?, ?, ?, ?, ?, ?)",
                (self.account, self.tariff.name, month, paid.queries, paid.units, _text(paid.usd)),
            )

    def charged(self, tariff: str | None = None, month: str | None = None) -> Charged:
        """All that was paid on this account, by any run; of one tariff and month ("2026-11") if given."""
        rows = self.database.execute(
            "SELECT queries, units, usd FROM charged WHERE account = :account"
            " AND tariff = IFNULL(:tariff, tariff) AND month = IFNULL(:month, month)",
            {"account": self.account, "tariff": tariff, "month": month},
        )
        return sum((Charged(queries, units, Decimal(usd)) for queries, units, usd in rows), FREE)

    def _price(self, units: int, queries: int, before: int) -> Charged:
        units *= queries
        return Charged(queries, units, self.tariff.usd(units, before)) if queries else FREE

    def _insert(self, step: int, rows: Iterable[dict[str, object]], at: datetime) -> None:
        shared = {
            "run": self.run,
            "step": step,
            "teacher": self.teacher,
            "account": self.account,
            "tariff": self.tariff.name,
            "at": at.astimezone(UTC).isoformat(timespec="milliseconds"),
        }
        self.database.executemany(_INSERT, (shared | row for row in rows))


def _columns(entry: Entry, units: int, usd: Decimal) -> dict[str, object]:
    return {
        "row": entry.question.row,
        "key": entry.question.key,
        "outcome": entry.outcome,
        "characters": entry.question.characters,
        "units": units,
        "queries": entry.queries,
        "usd": _text(usd),
    }


def totals(database: sqlite3.Connection, run: str) -> list[Total]:
    """One run's questions by teacher and outcome."""
    create(database, *_SCHEMA)
    usd: dict[tuple[str, str], Decimal] = {}
    paid = database.execute("SELECT teacher, outcome, usd FROM ledger WHERE run = ? AND queries > 0", (run,))
    for teacher, outcome, price in paid:
        usd[teacher, outcome] = usd.get((teacher, outcome), Decimal(0)) + Decimal(price)
    rows: Sequence[tuple[str, Outcome, int, int, int, int, int]] = database.execute(
        _TOTALS, (run,)
    ).fetchall()
    return [Total(*row, usd=usd.get(row[:2], Decimal(0))) for row in rows]


def answered(database: sqlite3.Connection, run: str, end: int) -> int:
    """Questions of a run's steps before this one that have an answer."""
    create(database, *_SCHEMA)
    steps = {"author": run, "first": 0, "end": end}
    return int(database.execute(_ANSWERED, steps).fetchone()[0])


def take_over(
    database: sqlite3.Connection, author: str, run: str, account: str, end: int, at: datetime
) -> None:
    """Enters what another run asked before a step, all of it answered, as this run's own, kept and free.

    Stopped on the way, it can be done again: what a run has stands once.
    """
    theirs = {"author": author, "run": run, "account": account}
    theirs["at"] = at.astimezone(UTC).isoformat(timespec="milliseconds")
    for first in range(0, end, _STEPS_AT_ONCE):
        with transaction(database):
            database.execute(_TAKE_OVER, theirs | {"first": first, "end": min(end, first + _STEPS_AT_ONCE)})


def paid(database: sqlite3.Connection) -> dict[tuple[str, str], tuple[int, int]]:
    """Run and teacher -> the queries and units that were charged."""
    create(database, *_SCHEMA)
    rows = database.execute(
        "SELECT run, teacher, SUM(queries), SUM(units * queries) FROM ledger WHERE queries > 0"
        " GROUP BY run, teacher ORDER BY MIN(rowid)"
    )
    return {(run, teacher): (queries, units) for run, teacher, queries, units in rows}


def runs(database: sqlite3.Connection) -> list[str]:
    """The runs of an answers file, in the order in which they began."""
    create(database, *_SCHEMA)
    rows = database.execute("SELECT run FROM ledger GROUP BY run ORDER BY MIN(rowid)")
    return [run for (run,) in rows]


def export(database: sqlite3.Connection) -> Iterator[tuple[object, ...]]:
    """The names of the columns, then every row as it was written; content keys in hexadecimal."""
    rows = database.execute("SELECT * FROM ledger ORDER BY rowid")
    yield tuple(column[0] for column in rows.description)
    for row in rows:
        yield tuple(value.hex() if isinstance(value, bytes) else value for value in row)


def month_of(at: datetime) -> str:
    """The calendar month in UTC, as in "2026-11"."""
    return f"{at.astimezone(UTC):%Y-%m}"


def _text(usd: Decimal) -> str:
    return f"{usd.normalize():f}"
