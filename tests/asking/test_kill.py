"""kill -9 in the middle of asking, again and again: the account ends as if nothing had happened."""

import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from fake_teacher import account

from student_trainer.costs.database import open_database
from student_trainer.costs.ledger import totals

SCRIPT = Path(__file__).with_name("run_asking.py")
KILLS = 5


def command(folder: Path, queries: int | None) -> list[str]:
    return [sys.executable, str(SCRIPT), str(folder), "40", str(queries).lower()]


def killed(folder: Path, queries: int | None, steps: int, pause_s: float) -> None:
    """Lets it do so many steps, and kills it anywhere in the next: each step begins with a line from here."""
    with subprocess.Popen(
        command(folder, queries), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(steps):
            process.stdin.write("\n")
            assert process.stdout.readline()
        process.stdin.write("\n")
        time.sleep(pause_s)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("queries", [None, 25])
def test_a_killed_run_ends_with_the_same_account(tmp_path: Path, queries: int | None) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    subprocess.run(command(whole, queries), stdin=subprocess.DEVNULL, check=True)
    dice = random.Random(str(queries))
    for _ in range(KILLS):
        killed(broken, queries, dice.randint(1, 7), dice.uniform(0, 0.01))
        with closing(open_database(broken / "answers.sqlite")) as database:
            charged = sum(total.queries for total in totals(database, "run"))
            flying = database.execute("SELECT COUNT(*) FROM in_flight").fetchone()[0]
            log = (broken / "charges.log").read_text().split("\n")[:-1]
            assert charged <= len(log) <= charged + flying  # what is not in the ledger is reserved
    subprocess.run(command(broken, queries), stdin=subprocess.DEVNULL, check=True)
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
