"""The most that an account may be charged: reserved before a question leaves, settled after.

A question in flight counts as one query at its worst price until its answer is written. A trainer that
died leaves its reservations behind: they count as spent until its run resumes, or is released.
"""

import sqlite3
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import accumulate

from student_trainer.costs.database import create, transaction
from student_trainer.costs.ledger import Charged, Ledger, Question, month_of

_SCHEMA = """CREATE TABLE IF NOT EXISTS in_flight (
    account TEXT NOT NULL, run TEXT NOT NULL, step INTEGER NOT NULL, teacher TEXT NOT NULL,
    row INTEGER NOT NULL, key BLOB NOT NULL, tariff TEXT NOT NULL, month TEXT NOT NULL,
    units INTEGER NOT NULL, usd TEXT NOT NULL,
    PRIMARY KEY (account, run, step, teacher, row)) WITHOUT ROWID"""
_PLACE = "account = ? AND run = ? AND step = ? AND teacher = ?"


@dataclass(frozen=True)
class Grant:
    """How many of the questions, from the first, may leave.

    Attributes:
        count: questions that are reserved now.
        lost: keys of those among them that this run had in flight when it died. Their teacher has
            probably charged for them, so an answer out of its cache still counts as a query.
        at: when they leave: the time by which they are priced.
    """

    count: int
    lost: frozenset[bytes]
    at: datetime


class Budget:
    """Limits on what the ledger's account is charged, over all runs and processes on the same file.

    Args:
        ledger: whose account, run, teacher and tariff are meant.
        queries: most queries; None sets no limit.
        usd: most dollars; None sets no limit.
    """

    def __init__(self, ledger: Ledger, queries: int | None = None, usd: Decimal | None = None) -> None:
        self._ledger, self._database = ledger, ledger.database
        self._queries, self._usd = queries, usd
        create(self._database, _SCHEMA)

    def reserve(self, step: int, questions: Sequence[Question], at: datetime) -> Grant:
        """Reserves as many as the limits allow, the first ones first; the caller holds the transaction."""
        lost = self._take_back(step, questions)
        paid = self._ledger.charged()
        count = min(self._countable(questions, paid), self._affordable(questions, paid, month_of(at)))
        granted = questions[:count]
        rows = [(*self._place(step), *self._terms(question, at)) for question in granted]
        self._database.executemany(f"INSERT INTO in_flight VALUES ({', '.join('?' * 10)})", rows)
        return Grant(count, frozenset(question.key for question in granted) & lost, at)

    def settle(self, step: int, questions: Iterable[Question]) -> None:
        """Ends the reservations of questions whose fate is known; the caller holds the transaction."""
        rows = [(*self._place(step), question.row) for question in questions]
        self._database.executemany(f"DELETE FROM in_flight WHERE {_PLACE} AND row = ?", rows)

    def _take_back(self, step: int, questions: Sequence[Question]) -> set[bytes]:
        """Ends this run's own reservations of the same questions; their keys."""
        ours = dict(
            self._database.execute(f"SELECT row, key FROM in_flight WHERE {_PLACE}", self._place(step))
        )
        stale = [question for question in questions if question.row in ours]
        self.settle(step, stale)
        return {question.key for question in stale if ours[question.row] == question.key}

    def _countable(self, questions: Sequence[Question], paid: Charged) -> int:
        if self._queries is None:
            return len(questions)
        count = "SELECT COUNT(*) FROM in_flight WHERE account = ?"
        flying: int = self._database.execute(count, (self._ledger.account,)).fetchone()[0]
        return max(0, min(len(questions), self._queries - paid.queries - flying))

    def _affordable(self, questions: Sequence[Question], paid: Charged, month: str) -> int:
        """The longest prefix that fits, should everything in flight be charged.

        What flies at this tariff this month shares its tiers, so it is priced together with the new
        questions; the rest at its worst price.
        """
        if self._usd is None:
            return len(questions)
        tariff = self._ledger.tariff
        flying, elsewhere = self._flying(month)
        room = self._usd - paid.usd - elsewhere
        before = self._ledger.charged(tariff.name, month).units
        sizes = accumulate((tariff.units(question.characters) for question in questions), initial=flying)
        return max(0, bisect_right([tariff.usd(units, before) for units in sizes], room) - 1)

    def _flying(self, month: str) -> tuple[int, Decimal]:
        """Units in flight at this tariff in this month, and the dollars of all others."""
        rows = self._database.execute(
            "SELECT tariff = ? AND month = ?, units, usd FROM in_flight WHERE account = ?",
            (self._ledger.tariff.name, month, self._ledger.account),
        ).fetchall()
        units = sum(units for here, units, _ in rows if here)
        return units, sum((Decimal(usd) for here, _, usd in rows if not here), Decimal(0))

    def _place(self, step: int) -> tuple[str, str, int, str]:
        return self._ledger.account, self._ledger.run, step, self._ledger.teacher

    def _terms(self, question: Question, at: datetime) -> tuple[int, bytes, str, str, int, str]:
        tariff = self._ledger.tariff
        units = tariff.units(question.characters)
        return question.row, question.key, tariff.name, month_of(at), units, f"{tariff.worst(units):f}"


def in_flight(database: sqlite3.Connection) -> dict[str, int]:
    """Run -> its questions that are reserved and not settled."""
    create(database, _SCHEMA)
    return dict(database.execute("SELECT run, COUNT(*) FROM in_flight GROUP BY run"))


def release(database: sqlite3.Connection, run: str) -> None:
    """Gives back what a run that will never resume has in flight."""
    with transaction(database):
        database.execute("DELETE FROM in_flight WHERE run = ?", (run,))
