"""kill -9 of a trainer: gone on with, it ends as if nothing had happened, and has asked nothing twice."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import StartServer
from trainers import ONE_TEXT_A_RUN, Trainer, ledger_of, result_of, timeless, usage, weights_of

KILLED = -signal.SIGKILL
EVERY = ("--checkpoint-steps", "4")


@pytest.mark.parametrize("strategy", ["entropy", "random"])
def test_a_run_that_is_killed_again_and_again_equals_an_unbroken_one(
    strategy: str, command, request, task: Path, other_task: Path, new_server: StartServer, tmp_path: Path
) -> None:
    whole: Path = request.getfixturevalue("by_entropy" if strategy == "entropy" else "at_random")
    server = new_server(*ONE_TEXT_A_RUN)
    data = task if strategy == "entropy" else other_task
    flags = command(*EVERY, "--resume", strategy=strategy, data=data, teacher=f"grpc://{server.grpc}")

    first = Trainer(tmp_path, *flags)
    assert first.wait_for_steps(2)
    assert first.kill() == KILLED
    assert not list((tmp_path / "run").glob("checkpoint-*"))

    saving = Trainer(tmp_path, *flags, hold="student_trainer.checkpoint._flush")
    assert saving.wait_for_steps(10)
    assert saving.kill() == KILLED
    assert (tmp_path / "run" / ".writing-4" / "model.safetensors").exists()
    assert not list((tmp_path / "run").glob("checkpoint-*"))

    dice = random.Random(strategy)
    for _ in range(4):
        trainer = Trainer(tmp_path, *flags)
        assert trainer.wait_for_steps(dice.randint(4, 7))
        assert trainer.kill(dice.uniform(0, 0.02)) == KILLED
    last = Trainer(tmp_path, *flags)
    assert last.wait() == 0, last.log

    assert weights_of(tmp_path / "run") == weights_of(whole / "run")
    assert ledger_of(tmp_path) == ledger_of(whole)
    broken, unbroken = result_of(tmp_path / "run"), result_of(whole / "run")
    assert timeless(broken) == timeless(unbroken)
    assert usage(server)["charged"] == unbroken["questions"]["charged"] + unbroken["questions"]["checked"]
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        ".lock",
        "model",
        "result.json",
        "run.json",
        "scalars",
    }


def test_a_finished_run_is_only_read(command, by_entropy: Path, server) -> None:
    before, weights = usage(server), weights_of(by_entropy / "run")
    again = Trainer(by_entropy, *command("--resume"))
    assert again.wait() == 0
    assert not again.wait_for_steps(1)
    assert usage(server) == before
    assert weights_of(by_entropy / "run") == weights


def test_the_console_script_is_killed_and_goes_on(
    command, at_random: Path, other_task: Path, server, tmp_path: Path
) -> None:
    script = Path(sys.executable).with_name("student-trainer")
    flags = command(*EVERY, "--resume", strategy="random", data=other_task)
    words = [str(script), *map(str, flags)]
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not list(tmp_path.glob("run/checkpoint-*")):
            time.sleep(0.01)
        process.kill()
        process.communicate()
    assert process.returncode == KILLED
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert weights_of(tmp_path / "run") == weights_of(at_random / "run")
    assert done.stdout == ""
    assert "student in run/model, account in run/result.json" in done.stderr
