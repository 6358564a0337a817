"""Budgets: reached to the last query, never passed; with more money a run goes on as if it always had it."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from processes import ServerProcess, start_server
from trainers import ONE_TEXT_A_RUN, Trainer, ledger_of, result_of, timeless, train, usage, weights_of

BUDGET = 34
CHECKED = 3  # of 12 that are wanted: a tenth of the budget
BOOK = """
as_of = 2026-01-01
source = "made up: a tenth of a cent for each text"

[features.sentiment]
unit_characters = 1000
tiers = [{ usd_per_1000 = 1 }]
"""


@pytest.fixture(scope="module")
def forgetful(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that charges for every question, however often it comes."""
    log = tmp_path_factory.mktemp("forgetful") / "log"
    running = start_server(teacher, log, *ONE_TEXT_A_RUN, "--cache-entries", "0")
    yield running
    assert running.stop() == 0


def test_a_run_stops_at_its_budget_and_goes_on_with_a_larger_one(
    command, by_entropy: Path, forgetful: ServerProcess, tmp_path: Path
) -> None:
    before = usage(forgetful)["charged"]
    flags = command("--checkpoint-steps", 4, "--resume", teacher=f"grpc://{forgetful.grpc}")
    poor = train(tmp_path, *flags, "--budget-queries", BUDGET)
    assert usage(forgetful)["charged"] - before == BUDGET
    assert (poor["stopped"], poor["steps"]) == (True, 7)  # the eighth could pay for 3 of 4
    told = {"seen": 7 * 16, "asked": 32, "charged": 31, "refused": 1, "checked": CHECKED}
    assert poor["questions"] | told == poor["questions"]
    assert "(budget spent)" in (tmp_path / "log").read_text()

    assert timeless(train(tmp_path, *flags, "--budget-queries", BUDGET)) == timeless(poor)
    rich, whole = train(tmp_path, *flags, "--budget-queries", 1000), result_of(by_entropy / "run")
    assert weights_of(tmp_path / "run") == weights_of(by_entropy / "run")
    assert timeless(rich) == timeless(whole)
    assert [row for row in ledger_of(tmp_path) if row[4] != "refused"] == ledger_of(by_entropy)
    questions = whole["questions"]  # its budget has room for all 12 that are to be checked
    assert usage(forgetful)["charged"] - before == questions["checked"] + questions["charged"]


@pytest.mark.parametrize("strategy", ["entropy", "random"])
def test_a_run_without_money_may_go_on_with_labels_only(
    strategy: str, command, forgetful: ServerProcess, tmp_path: Path
) -> None:
    before = usage(forgetful)["charged"]
    flags = command(teacher=f"grpc://{forgetful.grpc}", strategy=strategy, when_spent="labels-only")
    result = train(tmp_path, *flags, "--budget-queries", BUDGET)
    assert usage(forgetful)["charged"] - before == BUDGET
    assert (result["stopped"], result["steps"]) == (False, 36)
    questions = result["questions"]
    assert questions["charged"] == BUDGET - CHECKED
    assert questions["refused"] == 36 * 4 - questions["charged"] - questions["kept"] > 0


def test_dollars_are_counted_to_the_last_one(command, forgetful: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "book.toml").write_text(BOOK)
    before = usage(forgetful)["charged"]
    flags = command("--price-book", "book.toml", teacher=f"grpc://{forgetful.grpc}", strategy="all")
    result = train(tmp_path, *flags, "--price-feature", "sentiment", "--budget-usd", "0.0505")
    assert usage(forgetful)["charged"] - before == 50
    assert result["stopped"]
    assert result["questions"]["charged"] == 50 - 5  # a tenth went into the check
    paid = sum(Decimal(row[8]) for row in ledger_of(tmp_path))
    assert paid == Decimal("0.050")
    assert result["usd"] == {"full": 0.576, "full_cached": 0.192, "selected": 0.045, "selected_cached": 0.045}


def test_two_trainers_on_one_account_never_pass_its_budget(
    command, forgetful: ServerProcess, tmp_path: Path
) -> None:
    before = usage(forgetful)["charged"]
    shared = ("--account", "ours", "--budget-queries", 70, "--when-spent", "labels-only")
    flags = command(*shared, teacher=f"grpc://{forgetful.grpc}")
    trainers = [Trainer(tmp_path, *flags, "--seed", seed, "--output", f"run-{seed}") for seed in (1, 2)]
    assert [trainer.wait() for trainer in trainers] == [0, 0], trainers[0].log
    assert usage(forgetful)["charged"] - before == 70
    results = [result_of(tmp_path / f"run-{seed}")["questions"] for seed in (1, 2)]
    assert sum(one["charged"] + one["checked"] for one in results) == 70
