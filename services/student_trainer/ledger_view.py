"""`student-trainer ledger`: what each run asked and paid, out of an answers file; or every row, as CSV."""

import csv
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

from rich.table import Table

from student_trainer.config import LedgerSettings
from student_trainer.costs.budget import in_flight, release
from student_trainer.costs.database import open_database
from student_trainer.costs.ledger import Total, export, runs, totals
from student_trainer.errors import UserError


def view(settings: LedgerSettings) -> Table:
    """One line for each run, teacher and outcome, and for what a run has in flight.

    Before that, gives back what the run named by `release` has there; then writes the rows to `csv`.

    Raises:
        UserError: there is no such file, or not one run whose name begins like that.
    """
    if not settings.answers.is_file():
        raise UserError(f"answers: {settings.answers} is not there; give the answers file of a run")
    with closing(open_database(settings.answers)) as database:
        if settings.release:
            release(database, _one_run(database, settings.release))
        if settings.csv:
            _write(settings.csv, export(database))
        flying = in_flight(database)
        found = {run: totals(database, run) for run in dict.fromkeys([*runs(database), *flying])}
        return _table(found, flying)


def _one_run(database: sqlite3.Connection, start: str) -> str:
    found = [run for run in in_flight(database) if run.startswith(start)]
    if len(found) != 1:
        raise UserError(f"release: {len(found)} runs with questions in flight begin with {start!r}; name one")
    return found[0]


def _table(found: dict[str, list[Total]], flying: dict[str, int]) -> Table:
    table = Table("run", "teacher", "outcome", "questions", "distinct", "queries charged", "usd")
    for run, lines in found.items():
        if run in flying:
            table.add_row(run[:12], "", "in flight", f"{flying[run]:,}")
        for line in lines:
            numbers = (f"{line.count:,}", f"{line.distinct:,}", f"{line.queries:,}", _dollars(line.usd))
            table.add_row(run[:12], line.teacher[:12], line.outcome, *numbers)
    return table


def _dollars(usd: Decimal) -> str:
    return f"{usd:,.4f}" if usd else ""


def _write(path: Path, rows: Iterator[tuple[object, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
