"""The budget on a real file, by one process and by eight: never overspent, nothing leaks."""

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from student_trainer.costs.budget import Budget, in_flight, release
from student_trainer.costs.database import open_database, transaction
from student_trainer.costs.ledger import Entry, Ledger, Question
from teacher_api.prices import UNPRICED, Tariff, load_tariff

TARIFF = load_tariff("google-natural-language", "sentiment")
AWS = load_tariff("aws-comprehend", "sentiment")
NOVEMBER = datetime(2026, 11, 30, 23, 59, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_database(tmp_path / "answers.sqlite")) as opened:
        yield opened


def ledger_on(
    database: sqlite3.Connection, run: str = "run", tariff: Tariff = TARIFF, teacher: str = "t"
) -> Ledger:
    return Ledger(database, run=run, teacher=teacher, account="a", tariff=tariff)


def questions(*rows: int, characters: int = 1_000) -> list[Question]:
    return [Question(row, b"key %d" % row, characters) for row in rows]


def reserve(budget: Budget, step: int, asked: list[Question], at: datetime = NOVEMBER) -> int:
    with transaction(budget._database):
        return budget.reserve(step, asked, at).count


def settle(
    ledger: Ledger,
    budget: Budget,
    step: int,
    asked: list[Question],
    queries: int = 1,
    at: datetime = NOVEMBER,
) -> None:
    outcome = "charged" if queries else "cached"
    with transaction(ledger.database):
        ledger.write(step, [Entry(question, outcome, queries) for question in asked], at)
        budget.settle(step, asked)


def test_without_limits_everything_is_granted(database: sqlite3.Connection) -> None:
    assert reserve(Budget(ledger_on(database)), 1, questions(*range(1000))) == 1000


def test_queries_are_granted_from_the_first_on_until_spent(database: sqlite3.Connection) -> None:
    ledger = ledger_on(database)
    budget = Budget(ledger, queries=5)
    assert reserve(budget, 1, questions(1, 2, 3)) == 3
    assert reserve(budget, 2, questions(4, 5, 6)) == 2
    assert reserve(budget, 3, questions(7)) == 0
    settle(ledger, budget, 1, questions(1, 2, 3))
    assert reserve(budget, 3, questions(7)) == 0


def test_answers_out_of_the_servers_cache_are_refunded(database: sqlite3.Connection) -> None:
    ledger = ledger_on(database)
    budget = Budget(ledger, queries=5)
    assert reserve(budget, 1, questions(1, 2, 3, 4, 5)) == 5
    settle(ledger, budget, 1, questions(1, 2, 3), queries=0)
    settle(ledger, budget, 1, questions(4, 5))
    assert reserve(budget, 2, questions(6, 7, 8, 9)) == 3


def test_a_resumed_step_replaces_its_own_reservation(database: sqlite3.Connection) -> None:
    budget = Budget(ledger_on(database), queries=5)
    assert reserve(budget, 1, questions(1, 2, 3, 4)) == 4
    again = Budget(ledger_on(database), queries=5)
    with transaction(database):
        grant = again.reserve(1, questions(1, 2, 3, 4, 5, 6), NOVEMBER)
    assert grant.count == 5
    assert grant.lost == {b"key 1", b"key 2", b"key 3", b"key 4"}


def test_a_dead_runs_reservation_counts_until_it_is_released(database: sqlite3.Connection) -> None:
    assert reserve(Budget(ledger_on(database, "dead"), queries=5), 1, questions(1, 2, 3)) == 3
    other = Budget(ledger_on(database, "alive"), queries=5)
    assert reserve(other, 1, questions(1, 2, 3)) == 2
    assert in_flight(database) == {"dead": 3, "alive": 2}
    release(database, "dead")
    assert in_flight(database) == {"alive": 2}
    assert reserve(other, 2, questions(4, 5, 6, 7)) == 3


def test_dollars_count_the_free_units_and_what_flies(database: sqlite3.Connection) -> None:
    ledger = ledger_on(database)
    budget = Budget(ledger, usd=Decimal("0.002"))
    assert reserve(budget, 1, questions(1, characters=4_999_000)) == 1  # 4,999 of 5,000 free units
    assert reserve(budget, 2, questions(2, 3, 4, 5, 6)) == 3  # one free, two at $0.001
    assert reserve(budget, 3, questions(7)) == 0
    settle(ledger, budget, 2, questions(2, 3, 4))
    assert ledger.charged().usd == 0  # its place in the month is taken by who is charged first ...
    assert reserve(budget, 3, questions(7)) == 0  # ... and what flies is priced behind it
    settle(ledger, budget, 1, questions(1, characters=4_999_000))
    assert ledger.charged().usd == Decimal("0.002")


def test_no_dollars_still_buy_what_is_free(database: sqlite3.Connection) -> None:
    budget = Budget(ledger_on(database), usd=Decimal(0))
    assert reserve(budget, 1, questions(1, 2, characters=3_000_000)) == 1


def test_another_tariff_in_flight_counts_at_its_worst_price(database: sqlite3.Connection) -> None:
    limit = Decimal("0.0010")
    assert reserve(Budget(ledger_on(database, tariff=AWS, teacher="aws"), usd=limit), 1, questions(1)) == 1
    google = Budget(ledger_on(database, tariff=TARIFF), usd=limit)
    assert reserve(google, 1, questions(2, characters=5_000_000)) == 1  # free units
    assert reserve(google, 2, questions(3)) == 0


def test_another_month_in_flight_counts_at_its_worst_price(database: sqlite3.Connection) -> None:
    budget = Budget(ledger_on(database), usd=Decimal("0.002"))
    assert reserve(budget, 1, questions(1, 2, 3), NOVEMBER) == 3  # free, unless others are charged first
    assert reserve(budget, 2, questions(4), DECEMBER) == 0
    assert reserve(budget, 2, questions(4), NOVEMBER) == 1


def test_both_limits_hold(database: sqlite3.Connection) -> None:
    budget = Budget(ledger_on(database, tariff=AWS), queries=3, usd=Decimal("0.002"))
    assert reserve(budget, 1, questions(1, 2, 3)) == 2
    assert reserve(Budget(ledger_on(database, tariff=UNPRICED), queries=3), 2, questions(4, 5)) == 1


events = st.lists(
    st.tuples(
        st.sampled_from([TARIFF, AWS]),
        st.lists(st.integers(0, 2_500_000), max_size=6),  # characters of each question
        st.booleans(),  # answered at once, or only at the end
        st.sampled_from([0, 1]),  # charged
        st.sampled_from([NOVEMBER, DECEMBER]),
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None)
@given(events=events, queries=st.integers(0, 20), cents=st.integers(0, 800))
def test_no_history_overspends(events: list, queries: int, cents: int) -> None:
    limit = Decimal(cents) / 100
    with closing(open_database(Path(":memory:"))) as database:
        late = []
        for step, (tariff, sizes, soon, charged, at) in enumerate(events):
            ledger = ledger_on(database, tariff=tariff)
            budget = Budget(ledger, queries=queries, usd=limit)
            asked = [Question(row, b"%d %d" % (step, row), size) for row, size in enumerate(sizes)]
            granted = asked[: reserve(budget, step, asked, at)]
            answered = (ledger, budget, step, granted, charged, at)
            settle(*answered) if soon else late.append(answered)
            assert ledger.charged().usd <= limit
        for answered in reversed(late):
            settle(*answered)
            assert answered[0].charged().usd <= limit
            assert answered[0].charged().queries <= queries
        assert database.execute("SELECT COUNT(*) FROM in_flight").fetchone() == (0,)


def spend(path: Path, run: int, limit: int) -> int:
    """Asks until refused, a third of the answers from a cache; what it was charged."""
    dice, charged = random.Random(run), 0
    with closing(open_database(path)) as database:
        ledger = ledger_on(database, run=str(run), tariff=AWS)
        budget = Budget(ledger, queries=limit, usd=Decimal(limit) * 3 / 10_000)
        for step in range(10**6):
            asked = questions(*range(dice.randint(1, 20)), characters=1)
            with transaction(database):
                count = budget.reserve(step, asked, NOVEMBER).count
            if not count:
                return charged
            for question in asked[:count]:
                queries = int(dice.random() < 2 / 3)
                settle(ledger, budget, step, [question], queries)
                charged += queries
            assert ledger.charged().queries <= limit
    raise AssertionError("never refused")


def open_all(folder: Path) -> None:
    for number in range(150):
        open_database(folder / f"{number}.sqlite").close()


def test_eight_processes_open_new_files_at_once(tmp_path: Path) -> None:
    with get_context("spawn").Pool(8) as pool:
        pool.map(open_all, [tmp_path] * 8, chunksize=1)


def test_eight_processes_never_overspend(tmp_path: Path) -> None:
    path, limit = tmp_path / "answers.sqlite", 1_000
    with get_context("spawn").Pool(8) as pool:
        charged = pool.starmap(spend, [(path, run, limit) for run in range(8)])
    with closing(open_database(path)) as database:
        ledger = ledger_on(database, tariff=AWS)
        assert ledger.charged().queries == sum(charged)
        # A process may give up while what was left flies with another: at most 8 x 20 questions.
        assert limit - 160 <= sum(charged) <= limit
        assert database.execute("SELECT COUNT(*) FROM in_flight").fetchone() == (0,)
