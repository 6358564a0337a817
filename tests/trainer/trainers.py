"""student-trainer in processes of their own, forked from one that has its libraries imported already.

Each is a whole process: with its own arguments, exit code and log, and it can be killed. It tells a
test of each step that it has learnt, and may be held at the entrance of one function.
"""

import importlib
import json
import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
from processes import ServerProcess

PRELOADED = [
    "student_trainer.run",
    "student_trainer.experiments.bench",
    "teacher_server.model",
    "transformers.models.bert.modeling_bert",
]  # without grpc: it does not outlive a fork
SECONDS = 100

# Of a server: a text's logits differ in the last bit with its company in a batch, and so with the time
# of a question. Runs can only be compared bit by bit when no text has any.
ONE_TEXT_A_RUN = ("--max-length", "12", "--batch-tokens", "12")

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(PRELOADED)


class Trainer:
    """One command that runs in `folder`.

    Args:
        hold: a function, as in "student_trainer.checkpoint.save", that the process never gets past.
    """

    def __init__(self, folder: Path, *arguments: object, hold: str | None = None) -> None:
        self._log = folder / "log"
        self._steps, told = _context.Pipe(duplex=False)
        words = [str(word) for word in arguments]
        self._process = _context.Process(target=_live, args=(words, folder, told, hold))
        self._process.start()
        told.close()

    @property
    def log(self) -> str:
        """What it has printed, as one line."""
        return " ".join(self._log.read_text().split()) if self._log.exists() else ""

    def wait(self) -> int:
        """Its exit code."""
        self._process.join(SECONDS)
        assert self._process.exitcode is not None, f"still running:\n{self.log}"
        return self._process.exitcode

    def wait_for_steps(self, steps: int) -> bool:
        """Returns when it has learnt so many more, or is held (or at its end: False)."""
        try:
            for _ in range(steps):
                assert self._steps.poll(SECONDS), f"no step:\n{self.log}"
                if self._steps.recv() == "held":
                    break
        except EOFError:
            return False
        return True

    def wait_for_text(self, text: str) -> None:
        until = time.monotonic() + SECONDS
        while text not in self.log:
            assert self._process.is_alive(), self.log
            assert time.monotonic() < until, self.log
            time.sleep(0.02)

    def kill(self, pause_s: float = 0.0) -> int:
        """kill -9, a while later: anywhere in a step. Its exit code, 0 if it came to its end before."""
        self._process.join(pause_s)
        self._process.kill()
        return self.wait()


def train(folder: Path, *arguments: object) -> dict[str, Any]:
    """A run to its end; its result.json, from the folder of the last `--output`."""
    trainer = Trainer(folder, *arguments)
    assert trainer.wait() == 0, trainer.log
    return result_of(folder / str(arguments[arguments.index("--output") + 1]))


def result_of(output: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((output / "result.json").read_text())
    return result


def timeless(result: dict[str, Any]) -> dict[str, Any]:
    """A result without what is the machine's, not the run's."""
    return result | {"seconds": 0, "waited": 0}


def weights_of(output: Path) -> bytes:
    return (output / "model" / "model.safetensors").read_bytes()


def ledger_of(folder: Path, output: str = "run") -> list[tuple[Any, ...]]:
    """Every row of one run, but its random name and the time, in the order of the steps."""
    run = json.loads((folder / output / "run.json").read_text())["id"]
    with closing(sqlite3.connect(folder / "answers.sqlite")) as database:
        rows = database.execute(
            "SELECT step, row, teacher, key, outcome, characters, units, queries, usd, tariff FROM ledger"
            " WHERE run = ?",
            (run,),
        ).fetchall()
    return sorted(rows)


def usage(server: ServerProcess) -> dict[str, int]:
    """By the server's own count."""
    counts: dict[str, int] = httpx.get(f"{server.url}/v1/usage").json()
    return counts


def _live(arguments: Sequence[str], folder: Path, told: Connection, hold: str | None) -> None:
    os.chdir(folder)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    _tell_steps(told)
    if hold:
        _hold(hold, told)
    from student_trainer.__main__ import main

    main(list(arguments))


def _tell_steps(told: Connection) -> None:
    from student_trainer import loop

    learn = loop.learn

    def telling(*arguments: Any) -> Any:
        step = learn(*arguments)
        told.send("learnt")
        return step

    loop.learn = telling


def _hold(name: str, told: Connection) -> None:
    def held(*_: object) -> None:
        told.send("held")
        signal.pause()

    module, _, function = name.rpartition(".")
    setattr(importlib.import_module(module), function, held)
