"""kill -9 in the middle of asking, again and again: the account ends as if nothing had happened."""

import random
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from fake_teacher import account

from student_trainer.costs.database import open_database
from student_trainer.costs.ledger import totals

SCRIPT = Path(__file__).with_name("run_asking.py")
STEPS = 40


def run(folder: Path, queries: int | None, kill_after_steps: int | None = None, pause_s: float = 0.0) -> bool:
    """Runs until done, or until it is killed some while after a step; whether it was done."""
    command = [sys.executable, str(SCRIPT), str(folder), str(STEPS), str(queries).lower()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(STEPS if kill_after_steps is None else kill_after_steps):
            process.stdout.readline()
        if kill_after_steps is not None:
            try:
                process.wait(pause_s)  # anywhere in a step
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        process.stdout.read()
    assert process.returncode in (0, -signal.SIGKILL)
    return process.returncode == 0


@pytest.mark.parametrize("queries", [None, 25])
def test_a_killed_run_ends_with_the_same_account(tmp_path: Path, queries: int | None) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    assert run(whole, queries)
    dice, kills = random.Random(str(queries)), 0
    while not run(broken, queries, dice.randint(3, 12), dice.uniform(0, 0.02)):
        kills += 1
        with closing(open_database(broken / "answers.sqlite")) as database:
            charged = sum(total.queries for total in totals(database, "run"))
            flying = database.execute("SELECT COUNT(*) FROM in_flight").fetchone()[0]
            log = (broken / "charges.log").read_text().split("\n")[:-1]
            assert charged <= len(log) <= charged + flying  # what is not in the ledger is reserved
    assert kills >= 3
    with (
        closing(open_database(whole / "answers.sqlite")) as once,
        closing(open_database(broken / "answers.sqlite")) as often,
    ):
        assert account(often) == account(once)
        log = (broken / "charges.log").read_text().split("\n")[:-1]
        assert len(log) == len(set(log)) == sum(total.queries for total in totals(often, "run"))
        assert queries is None or len(log) == queries
        assert often.execute("SELECT COUNT(*) FROM in_flight").fetchone() == (0,)
        kept = [sorted(file.execute("SELECT key, value FROM answers")) for file in (once, often)]
        assert kept[0] == kept[1]
