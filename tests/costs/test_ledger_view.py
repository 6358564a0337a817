"""`student-trainer ledger`: the account as a table and as rows, and a dead run's reservations given back."""

import csv
from contextlib import closing
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from student_trainer.config import LedgerSettings
from student_trainer.costs.budget import Budget
from student_trainer.costs.database import open_database, transaction
from student_trainer.costs.ledger import Entry, Ledger, Question
from student_trainer.errors import UserError
from student_trainer.ledger_view import view
from teacher_api.prices import UNPRICED

AT = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """Run aaaa… was charged for one question; it and bbbb… died with two and one in flight."""
    path = tmp_path / "answers.sqlite"
    with closing(open_database(path)) as database:
        for run, rows in (("a" * 32, (1, 2)), ("b" * 32, (3,))):
            ledger = Ledger(database, run=run, teacher="t", account="both", tariff=UNPRICED)
            budget = Budget(ledger)
            with transaction(database):
                budget.reserve(1, [Question(row, bytes([row]), 10) for row in rows], AT)
                if rows == (1, 2):
                    ledger.write(0, [Entry(Question(9, b"9", 10), "charged", 1)], AT)
    return path


def shown(settings: LedgerSettings) -> list[list[str]]:
    page = StringIO()
    Console(file=page, width=120).print(view(settings))
    rows = [line for line in page.getvalue().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in row.strip("│").split("│")] for row in rows]


def test_what_flies_is_shown_and_released(answers: Path) -> None:
    first, second, third = shown(LedgerSettings(answers=answers))
    assert first == ["a" * 12, "", "in flight", "2", "", "", ""]
    assert second == ["a" * 12, "t", "charged", "1", "1", "1", ""]
    assert third == ["b" * 12, "", "in flight", "1", "", "", ""]
    assert shown(LedgerSettings(answers=answers, release="bbbb")) == [first, second]


@pytest.mark.parametrize("name", ["cccc", "aaab"])
def test_a_run_that_is_not_there(answers: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"release: 0 runs .*{name}"):
        view(LedgerSettings(answers=answers, release=name))


def test_every_row_as_csv(answers: Path, tmp_path: Path) -> None:
    view(LedgerSettings(answers=answers, csv=tmp_path / "rows.csv"))
    with (tmp_path / "rows.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["run"], row["row"], row["outcome"], row["queries"]) == ("a" * 32, "9", "charged", "1")
