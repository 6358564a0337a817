"""A teacher whose charges are on its own disk, so that what a trainer says can be held against it."""

import asyncio
import hashlib
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from sqlite3 import Connection

import numpy as np

from student_trainer.costs.budget import Budget
from student_trainer.costs.ledger import Ledger
from student_trainer.teachers.asker import Asker
from student_trainer.teachers.store import Store
from teacher_api.messages import Answer, Description, Instance, Outputs, Want
from teacher_api.prices import Tariff, load_tariff

DESCRIPTION = Description("fake", "f" * 64, ("a", "b", "c"), "", 128, 2, 8, 16, 100, "float32")
Fault = Callable[[Instance], Answer | None]  # in the place of an answer

AWS = load_tariff("aws-comprehend", "sentiment")
NOVEMBER = datetime(2026, 11, 24, tzinfo=UTC)


def logits(text: str) -> np.ndarray:
    """Three numbers that depend on nothing but the text."""
    digest = hashlib.sha256(text.encode()).digest()
    return np.frombuffer(digest[:3], np.uint8).astype(np.float32)


class FakeTeacher:
    """Answers after `delay_s`; charges are lines in `log`, and it caches what it has charged for."""

    description = DESCRIPTION

    def __init__(self, log: Path, delay_s: float = 0.0, faults: Fault = lambda instance: None) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._seen = set(log.read_text().splitlines())
        self._delay_s, self._fault = delay_s, faults
        self.asked: list[list[str]] = []

    async def ask(self, instances: Sequence[Instance], want: Want, operation: str = "") -> list[Answer]:
        self.asked.append([instance.text for instance in instances])
        answers = [self._fault(instance) or self._answer(instance) for instance in instances]
        await asyncio.sleep(self._delay_s)
        return answers

    def _answer(self, instance: Instance) -> Answer:
        cached = instance.text in self._seen
        if not cached:
            os.write(self._log, f"{instance.text}\n".encode())
            self._seen.add(instance.text)
        return Answer(Outputs(logits=logits(instance.text)), cached, charged=int(not cached))


def asker_on(
    database: Connection,
    teacher: FakeTeacher,
    run: str = "run",
    *,
    want: Want | None = None,
    queries: int | None = None,
    usd: Decimal | None = None,
    tariff: Tariff = AWS,
) -> Asker:
    ledger = Ledger(
        database, run=run, teacher=teacher.description.fingerprint, account="account", tariff=tariff
    )
    budget = Budget(ledger, queries, usd)
    return Asker(
        teacher, want or Want(), store=Store(database), ledger=ledger, budget=budget, now=lambda: NOVEMBER
    )


def instances(*texts: str) -> list[Instance]:
    return [Instance(text) for text in texts]


def account(database: Connection, run: str = "run") -> list[tuple]:
    """A run's ledger without its clock."""
    return database.execute(
        "SELECT step, row, hex(key), outcome, characters, units, queries, usd, tariff FROM ledger"
        " WHERE run = ? ORDER BY step, row, outcome",
        (run,),
    ).fetchall()


def outcomes(database: Connection, run: str = "run") -> list[tuple[int, int, str]]:
    return [(step, row, outcome) for step, row, _, outcome, *_ in account(database, run)]
