"""The ledger on a real file: nothing is hidden, nothing is written twice, money is exact."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from student_trainer.costs.database import open_database, transaction
from student_trainer.costs.ledger import (
    Charged,
    Entry,
    Ledger,
    Outcome,
    Question,
    answered,
    export,
    runs,
    take_over,
    totals,
)
from teacher_api.prices import load_tariff

TARIFF = load_tariff("google-natural-language", "sentiment")
NOVEMBER = datetime(2026, 11, 30, 23, 59, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_database(tmp_path / "folder" / "answers.sqlite")) as opened:
        yield opened


def ledger_on(
    database: sqlite3.Connection, run: str = "run", teacher: str = "t", account: str = "a"
) -> Ledger:
    return Ledger(database, run=run, teacher=teacher, account=account, tariff=TARIFF)


def entry(row: int, outcome: Outcome, queries: int = 0, characters: int = 1) -> Entry:
    return Entry(Question(row, b"key %d" % row, characters), outcome, queries)


def write(ledger: Ledger, step: int, *entries: Entry, at: datetime = NOVEMBER) -> None:
    with transaction(ledger.database):
        ledger.write(step, entries, at)


def outcomes(database: sqlite3.Connection) -> list[tuple[int, int, str, int]]:
    return database.execute("SELECT step, row, outcome, queries FROM ledger ORDER BY rowid").fetchall()


def test_a_redone_step_changes_nothing(database: sqlite3.Connection) -> None:
    ledger = ledger_on(database)
    write(ledger, 7, entry(1, "charged", 1), entry(2, "cached"), entry(3, "joined"))
    before = outcomes(database)
    write(ledger, 7, *(entry(row, "kept") for row in (1, 2, 3)), at=DECEMBER)
    assert outcomes(database) == before


@pytest.mark.parametrize("first", ["refused", "failed"])
def test_a_refusal_or_failure_does_not_block_the_answer(database: sqlite3.Connection, first: Outcome) -> None:
    ledger = ledger_on(database)
    write(ledger, 7, entry(1, first))
    write(ledger, 7, entry(1, first))
    assert outcomes(database) == [(7, 1, first, 0)]
    write(ledger, 7, entry(1, "charged", 1))
    assert outcomes(database) == [(7, 1, first, 0), (7, 1, "charged", 1)]
    assert [(total.outcome, total.count) for total in totals(database, "run")] == [("charged", 1)]


def test_a_refusal_after_the_answer_is_not_written(database: sqlite3.Connection) -> None:
    ledger = ledger_on(database)
    write(ledger, 7, entry(1, "charged", 1))
    write(ledger, 7, entry(1, "refused"))
    assert outcomes(database) == [(7, 1, "charged", 1)]


def test_a_second_charge_is_never_hidden(database: sqlite3.Connection) -> None:
    ledger = ledger_on(database)
    write(ledger, 7, entry(1, "charged", 1), entry(2, "failed", 1))
    write(ledger, 7, entry(1, "charged", 1), entry(2, "failed", 1), entry(2, "charged", 1))
    assert ledger.charged().queries == 5
    assert sum(total.queries for total in totals(database, "run")) == 5


@pytest.mark.parametrize("statement", ["UPDATE ledger SET usd = '0'", "DELETE FROM ledger"])
def test_it_is_append_only(database: sqlite3.Connection, statement: str) -> None:
    write(ledger_on(database), 1, entry(1, "charged", 1))
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        database.execute(statement)


def test_totals_by_teacher_and_outcome(database: sqlite3.Connection) -> None:
    small, large = ledger_on(database, teacher="small"), ledger_on(database, teacher="large")
    write(ledger_on(database, run="another"), 1, entry(1, "charged", 1, 5_000_000))
    write(small, 1, entry(1, "charged", 1, 800), entry(2, "charged", 1, 1_500))
    write(small, 2, entry(1, "kept", 0, 800), entry(2, "kept", 0, 1_500), entry(1, "kept", 0, 800))
    write(large, 1, entry(1, "cached", 0, 800))
    found = {(total.teacher, total.outcome): total for total in totals(database, "run")}
    assert set(found) == {("small", "charged"), ("small", "kept"), ("large", "cached")}
    charged, kept = found["small", "charged"], found["small", "kept"]
    assert (charged.count, charged.distinct, charged.characters, charged.units) == (2, 2, 2_300, 3)
    assert (charged.queries, charged.usd) == (2, Decimal("0.003"))  # the first 5,000 units went to "another"
    assert (kept.count, kept.distinct, kept.units, kept.queries, kept.usd) == (2, 2, 3, 0, 0)


def test_a_month_begins_with_its_free_units(database: sqlite3.Connection) -> None:
    ledger = ledger_on(database)
    write(ledger, 1, entry(1, "charged", 1, 5_001_000))
    assert ledger.charged() == Charged(1, 5_001, Decimal("0.001"))
    write(ledger, 2, entry(2, "charged", 1, 5_000_000), at=DECEMBER)
    assert ledger.charged("google-natural-language/sentiment", "2026-12") == Charged(1, 5_000, Decimal(0))
    write(ledger, 3, entry(3, "charged", 1), at=DECEMBER)
    assert ledger.charged().usd == Decimal("0.002")


def test_accounts_are_apart_and_teachers_share_their_account(database: sqlite3.Connection) -> None:
    write(ledger_on(database, account="a"), 1, entry(1, "charged", 1, 5_000_000))
    write(ledger_on(database, account="a", teacher="other"), 1, entry(1, "charged", 1))
    write(ledger_on(database, account="b"), 1, entry(1, "charged", 1))
    assert ledger_on(database, account="a").charged().usd == Decimal("0.001")
    assert ledger_on(database, account="b").charged() == Charged(1, 1, Decimal(0))


def test_a_transaction_that_fails_leaves_nothing(database: sqlite3.Connection) -> None:
    ledger = ledger_on(database)
    with pytest.raises(ZeroDivisionError), transaction(database):
        ledger.write(1, [entry(1, "charged", 1)], NOVEMBER)
        raise ZeroDivisionError
    assert outcomes(database) == []
    assert ledger.charged() == Charged()


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 3),  # step
            st.integers(1, 3),  # row
            st.sampled_from(["charged", "cached", "kept", "joined", "refused", "failed"]),
            st.integers(0, 3_000_000),  # characters
            st.sampled_from([NOVEMBER, DECEMBER]),
        )
    )
)
def test_running_sums_are_the_ledgers_and_the_price_lists(
    history: list[tuple[int, int, Outcome, int, datetime]],
) -> None:
    with closing(open_database(Path(":memory:"))) as database:
        ledger = ledger_on(database)
        for step, row, outcome, characters, at in history:
            write(ledger, step, entry(row, outcome, int(outcome == "charged"), characters), at=at)
        rows = database.execute("SELECT units, queries, usd FROM ledger WHERE queries > 0").fetchall()
        usd = sum((Decimal(usd) for *_, usd in rows), Decimal(0))
        assert ledger.charged() == Charged(len(rows), sum(units for units, *_ in rows), usd)
        months = [ledger.charged(TARIFF.name, month) for month in ("2026-11", "2026-12")]
        assert usd == sum(TARIFF.usd(month.units) for month in months)


def test_export_gives_every_row_with_its_names(database: sqlite3.Connection) -> None:
    write(ledger_on(database), 3, entry(7, "charged", 1, characters=40))
    names, row = export(database)
    found = dict(zip(names, row, strict=True))
    assert (found["step"], found["row"], found["key"], found["outcome"]) == (3, 7, b"key 7".hex(), "charged")
    assert runs(database) == ["run"]


def test_another_runs_first_steps_are_taken_over_once_and_free(database: sqlite3.Connection) -> None:
    author = ledger_on(database, run="author")
    write(author, -1, entry(9, "charged", 1))  # its handshake
    write(author, 0, entry(1, "refused"), entry(2, "charged", 1), entry(3, "joined"))
    write(author, 0, entry(1, "charged", 1))
    write(author, 700, entry(5, "cached"))
    write(author, 701, entry(4, "charged", 1))
    before = author.charged()
    own = "SELECT step, row, outcome, queries, usd, account, tariff FROM ledger WHERE run = 'run'"
    for _ in range(2):
        take_over(database, "author", "run", "mine", 701, DECEMBER)
        assert sorted(database.execute(own)) == [
            (step, row, "kept", 0, "0", "mine", TARIFF.name)
            for step, row in ((0, 1), (0, 2), (0, 3), (700, 5))
        ]
    assert author.charged() == before


def test_what_was_paid_before_taking_over_stays(database: sqlite3.Connection) -> None:
    write(ledger_on(database, run="author"), 0, entry(1, "charged", 1), entry(2, "charged", 1))
    write(ledger_on(database), 0, entry(1, "charged", 1))
    take_over(database, "author", "run", "a", 1, DECEMBER)
    assert [(total.outcome, total.queries) for total in totals(database, "run")] == [
        ("charged", 1),
        ("kept", 0),
    ]


@pytest.mark.parametrize("last", ["refused", "failed"])
def test_only_what_has_an_answer_counts_as_answered(database: sqlite3.Connection, last: Outcome) -> None:
    assert answered(database, "run", 2) == 0
    write(ledger_on(database), 0, entry(1, "charged", 1), entry(2, last), entry(3, "kept"))
    write(ledger_on(database), 2, entry(4, "charged", 1))
    assert answered(database, "run", 2) == 2
    write(ledger_on(database), 0, entry(2, "charged", 1))
    assert answered(database, "run", 2) == 3
