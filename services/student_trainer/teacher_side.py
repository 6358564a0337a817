"""The teacher's side of a run: connected, checked against the task, ledger and budget behind it."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from student_trainer.config import ConfigError, DistillSettings
from student_trainer.costs.budget import Budget
from student_trainer.costs.database import open_database
from student_trainer.costs.ledger import Ledger
from student_trainer.costs.prices import UNPRICED, Tariff, load_tariff
from student_trainer.data import TaskData
from student_trainer.loop import Asks, NoTeacher
from student_trainer.run_card import RunCard
from student_trainer.teachers.asker import Asker
from student_trainer.teachers.asking import Asking
from student_trainer.teachers.client import Client
from student_trainer.teachers.handshake import permutation, worse_than_chance
from student_trainer.teachers.store import Store
from teacher_api.messages import Description, Want

logger = logging.getLogger(__name__)

CHECK_STEP = -1  # the handshake's place in the ledger


@dataclass(frozen=True)
class TeacherSide:
    """Who answers, the teacher's class at each of the task's classes, and what it is (None: no teacher)."""

    asks: Asks
    permutation: list[int]
    description: Description | None


def tariff_of(settings: DistillSettings) -> Tariff:
    """Raises PriceBookError if the book or its feature cannot be used."""
    return load_tariff(settings.price_book, settings.price_feature) if settings.price_book else UNPRICED


@contextmanager
def open_teacher(settings: DistillSettings, task: TaskData, card: RunCard) -> Iterator[TeacherSide]:
    """Connects, pins the fingerprint and shakes hands; at the end waits for what is under way.

    Raises:
        TeacherUrlError, TeacherError: not reached. HandshakeError: another task's teacher.
        ConfigError: another teacher than the one that this run began with, or no place to write to.
    """
    if settings.teacher is None:
        card.begin("", task.digest)
        yield TeacherSide(NoTeacher(), list(range(len(task.label_names))), None)
        return
    with Asking(_opened(settings, settings.teacher, card)) as asking:
        teacher = asking.description
        classes = permutation(settings.teacher_labels or teacher.labels, task.label_names)
        card.begin(teacher.fingerprint, task.digest)
        _warn_if_useless(asking, task, classes, _rows_to_check(settings, task))
        yield TeacherSide(asking, classes, teacher)


def fingerprint_of(settings: DistillSettings, labels: tuple[str, ...]) -> str:
    """Shakes hands without a question; empty where there is no teacher."""
    if settings.teacher is None:
        return ""

    async def describe(url: str) -> Description:
        async with await Client.connect(url) as client:
            return client.description

    teacher = asyncio.run(describe(settings.teacher))
    permutation(settings.teacher_labels or teacher.labels, labels)
    return teacher.fingerprint


@asynccontextmanager
async def _opened(settings: DistillSettings, url: str, card: RunCard) -> AsyncIterator[Asker]:
    async with await Client.connect(url) as client:
        with closing(_database(settings.answers)) as database:
            ledger = _ledger(settings, card, client.description, database)
            budget = Budget(ledger, settings.budget_queries, settings.budget_usd)
            yield Asker(client, Want(), store=Store(database), ledger=ledger, budget=budget)


def _database(answers: Path) -> sqlite3.Connection:
    try:
        return open_database(answers)
    except (sqlite3.Error, OSError) as error:
        raise ConfigError(f"answers: {answers} cannot be used: {error}; name another file") from None


def _ledger(
    settings: DistillSettings, card: RunCard, teacher: Description, database: sqlite3.Connection
) -> Ledger:
    return Ledger(
        database,
        run=card.id,
        teacher=teacher.fingerprint,
        account=settings.account or card.id,
        tariff=tariff_of(settings),
    )


def _rows_to_check(settings: DistillSettings, task: TaskData) -> int:
    """As many as are wanted, for at most a tenth of a budget: a small one is there to learn from."""
    rows, tariff = settings.check_rows, tariff_of(settings)
    if settings.budget_queries is not None:
        rows = min(rows, settings.budget_queries // 10)
    if settings.budget_usd is not None:
        longest = max(instance.characters for instance in task.validation.instances)
        dearest = tariff.worst(tariff.units(longest)) or settings.budget_usd
        rows = min(rows, int(settings.budget_usd / 10 / dearest))
    return rows


def _warn_if_useless(asking: Asking, task: TaskData, classes: list[int], rows: int) -> None:
    """Asks about evenly spaced validation rows; a sorted file must not show one class only."""
    total = len(task.validation)
    numbers = sorted({i * total // rows for i in range(rows)}) if rows else []
    instances = [task.validation.instances[i] for i in numbers]
    # Numbered below the training rows' numbers, so that no row of the ledger is taken for one of them.
    answers = asking.submit(CHECK_STEP, numbers, instances).result()
    warning = worse_than_chance(answers, [(task.validation.labels or [])[i] for i in numbers], classes)
    if warning:
        logger.warning(warning)
