"""`student-trainer bench` with a real teacher: killed in the middle, run again, complete."""

import json
import re
import signal
from pathlib import Path

from trainers import Trainer


def test_a_grid_is_killed_and_goes_on(task: Path, student: Path, server, tmp_path: Path) -> None:
    flags = ("--data", task, "--student", student, "--teacher", f"grpc://{server.grpc}", "--output", "grid")
    recipe = ("--learning-rate", "2e-3", "--batch-size", 16, "--epochs", 0.8, "--max-length", 32)
    grid = ("--strategies", "[random,entropy]", "--ratios", "[0.25]", "--seeds", "[0,1]", "--check-rows", 0)
    command = ("bench", *flags, *recipe, *grid, "--checkpoint-steps", 3)

    first = Trainer(tmp_path, *command)
    assert first.wait_for_steps(2 * 10 + 5)  # in the middle of the third cell
    assert first.kill() == -signal.SIGKILL
    before = (tmp_path / "grid" / "results.jsonl").read_text().splitlines()
    assert len(before) == 2
    again = Trainer(tmp_path, *command)
    assert again.wait() == 0, again.log

    lines = (tmp_path / "grid" / "results.jsonl").read_text().splitlines()
    assert lines[:2] == before
    cells = [json.loads(line) for line in lines]
    expected = [
        f"{cell}-{seed}" for seed in (0, 1) for cell in ("none-0", "random-0.25", "entropy-0.25", "all-1")
    ]
    assert [cell["cell"] for cell in cells] == expected
    assert {(cell["steps"], cell["stopped"]) for cell in cells} == {(10, False)}
    asked = {"none": 0, "random": 40, "entropy": 40, "all": 160}
    assert all(cell["questions"]["asked"] == asked[cell["strategy"]] for cell in cells)
    page = (tmp_path / "grid" / "report.html").read_text()
    assert "8 of 8 runs" in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)  # nothing is loaded from elsewhere
    assert "<svg" in page
    assert "entropy" in (tmp_path / "grid" / "table.md").read_text()
    assert not list(tmp_path.glob("grid/cells/*/model"))

    third = Trainer(tmp_path, *command)
    assert third.wait() == 0
    assert not third.wait_for_steps(1)  # there is nothing left to run
    assert (tmp_path / "grid" / "results.jsonl").read_text().splitlines() == lines
