"""`student-trainer price`, as it is typed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tiny_task import TRAIN, rows, write_task

SCRIPT = Path(sys.executable).with_name("student-trainer")


def price(*flags: str) -> Any:
    command = [SCRIPT, "price", "--book", "google-natural-language", *flags, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


def test_the_papers_bill() -> None:
    found = price("--feature", "sentiment", "--queries", "7854040")
    assert found["usd"] == 3708.51
    assert found["units"] == found["queries"] == 7854040


def test_real_texts_before_anything_is_asked(tmp_path: Path) -> None:
    train = rows(TRAIN, "price")
    long = [{"text": "x" * 1500, "label": "positive"}] * 2  # two units each; the same question
    folder = write_task(tmp_path / "task", train + long, train[:9])
    found = price("--data", str(folder), "--ratio", "0.5")
    assert found["instances"] == TRAIN + 2
    assert found["distinct"] == len({row["text"] for row in train}) + 1
    assert found["full"]["no_cache"]["units"] == 3 * (TRAIN + 4)
    assert found["full"]["cache"]["units"] == found["distinct"] + 1
    assert found["full"]["no_cache"]["usd"] == 0  # within the free units of a month
