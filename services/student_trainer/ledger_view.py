"""`student-trainer ledger`: what each run asked and paid, out of an answers file; or every row, as CSV."""

import csv
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

from rich.table import Table

from student_trainer.config import LedgerSettings
from student_trainer.costs.database import open_database
from student_trainer.costs.ledger import Total, export, runs, totals
from student_trainer.errors import UserError


def view(settings: LedgerSettings) -> Table:
    """One line for each run, teacher and outcome; writes the rows to `csv` too, if it is given.

    Raises:
        UserError: there is no such file.
    """
    if not settings.answers.is_file():
        raise UserError(f"answers: {settings.answers} is not there; give the answers file of a run")
    with closing(open_database(settings.answers)) as database:
        if settings.csv:
            _write(settings.csv, export(database))
        return _table({run: totals(database, run) for run in runs(database)})


def _table(found: dict[str, list[Total]]) -> Table:
    table = Table("run", "teacher", "outcome", "questions", "distinct", "queries charged", "usd")
    for run, lines in found.items():
        for line in lines:
            numbers = (f"{line.count:,}", f"{line.distinct:,}", f"{line.queries:,}", _dollars(line.usd))
            table.add_row(run[:12], line.teacher[:12], line.outcome, *numbers)
    return table


def _dollars(usd: Decimal) -> str:
    return f"{usd:,.4f}" if usd else ""


def _write(path: Path, rows: Iterator[tuple[object, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
