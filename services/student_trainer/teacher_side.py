"""The teachers' side of a run: connected, checked against the task, ledger and budget behind them."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from student_trainer.config import ConfigError, DistillSettings
from student_trainer.costs.budget import Budget
from student_trainer.costs.database import open_database
from student_trainer.costs.ledger import Ledger
from student_trainer.data import DataError, TaskData, longest
from student_trainer.errors import UserError
from student_trainer.insides import Insight
from student_trainer.layers import Projection, pairs
from student_trainer.objective import Match
from student_trainer.questions import Asks, NoTeacher
from student_trainer.run_card import RunCard
from student_trainer.student import Anatomy
from student_trainer.tariffs import tariffs_of
from student_trainer.teacher_check import TeacherCheck, affordable, check
from student_trainer.teachers import refuse_shared_key
from student_trainer.teachers.asker import Asker
from student_trainer.teachers.asking import Asking
from student_trainer.teachers.client import Client
from student_trainer.teachers.handshake import HandshakeError, permutation
from student_trainer.teachers.store import Store
from teacher_api.messages import Description, Want
from teacher_api.prices import Tariff

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TeacherSide:
    """Who answers; of each teacher, smallest first, how it meets the student, what it is, and how good."""

    asks: Asks
    matches: Sequence[Match]
    descriptions: Sequence[Description]
    checks: Sequence[TeacherCheck]
    insight: Insight | None = None

    def projections(self, width: int, seed: int) -> list[Projection]:
        """Of each teacher with matched layers, and last of the general stage: to its own width."""
        matched = [len(match.layers) for match in self.matches]
        if self.insight:
            matched.append(len(self.insight.layers))
        teachers = [*self.descriptions, *self.descriptions[:1]]
        return [
            Projection(layers, width, teacher.hidden_size, seed)
            for layers, teacher in zip(matched, teachers, strict=False)
            if layers
        ]


@contextmanager
def open_teachers(
    settings: DistillSettings, task: TaskData, student: Anatomy, card: RunCard
) -> Iterator[TeacherSide]:
    """Connects, pins the fingerprints and shakes hands; at the end waits for what is under way.

    Raises:
        TeacherUrlError, TeacherError: not reached. HandshakeError: another task's teacher.
        UserError: layers that cannot be matched, or tokens in the general stage.
        ConfigError: another teacher than the one that this run began with, or no place to write to.
    """
    if not settings.teacher:
        card.begin("", task.digest)
        yield TeacherSide(NoTeacher(), [Match(range(len(task.label_names)))], [], [])
        return
    refuse_shared_key(settings.teacher)
    with Asking(_opened(settings, task, student, card)) as asking:
        teachers = asking.descriptions[: len(settings.teacher)]
        matches = _matches(teachers, settings, task, student)
        if settings.adopts_by_doubt:
            _warn_of_order(settings.teacher, teachers)
        card.begin(_joined(teachers), task.digest)
        checks = _checked(asking, settings, task, matches)
        yield TeacherSide(asking, matches, teachers, checks, _insight(settings, teachers[0], student))


def _checked(
    asking: Asking, settings: DistillSettings, task: TaskData, matches: Sequence[Match]
) -> list[TeacherCheck]:
    """How good each teacher is, which is warned of where it is no better than chance."""
    rows = affordable(settings, task.validation, tariffs_of(settings))
    checks = []
    for number, (url, one) in enumerate(zip(settings.teacher, matches, strict=True)):
        asker = number - len(matches)  # the check's askers are the last ones
        checks.append(check(asking, asker, task.validation, one.classes, rows))
        if warning := checks[-1].warning:
            logger.warning("%s: %s", url, warning)
    return checks


def _matches(
    teachers: Sequence[Description], settings: DistillSettings, task: TaskData, student: Anatomy
) -> list[Match]:
    """How each teacher's outputs meet the student's. Raises UserError, which says whose do not."""
    _refuse_twice(settings.teacher, teachers)
    matches = []
    for url, own, teacher in zip(settings.teacher, settings.by_teacher, teachers, strict=True):
        with _about(url):
            matches.append(match(teacher, own, task.label_names, student.layers))
            _refuse_too_long(task, teacher)
    return matches


@contextmanager
def _about(url: str) -> Iterator[None]:
    """A refusal within says which teacher it is about."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"{error} (it is about {url})") from None


def match(
    teacher: Description, settings: DistillSettings, labels: tuple[str, ...], student_layers: int
) -> Match:
    """Raises HandshakeError: classes that do not fit. UserError: layers that are not there."""
    classes = permutation(settings.teacher_labels or teacher.labels, labels)
    if settings.supervision == "none":
        return Match(classes)
    return Match(classes, pairs(settings.layer_map, teacher.layers, student_layers))


def _refuse_twice(urls: Sequence[str], teachers: Sequence[Description]) -> None:
    """Raises HandshakeError for one teacher under two addresses: its answers would count twice."""
    named: dict[str, str] = {}
    for url, teacher in zip(urls, teachers, strict=True):
        if other := named.get(teacher.fingerprint):
            raise HandshakeError(
                f"teacher: {other} and {url} are one teacher, {teacher.fingerprint[:12]}…; name another one; "
                "servers of one are grpc://host:port+host:port"
            )
        named[teacher.fingerprint] = url


def _warn_of_order(urls: Sequence[str], teachers: Sequence[Description]) -> None:
    """Who is the smallest is said by the order of the names, and an order by mistake costs dollars."""
    for (url, teacher), (after, next_teacher) in pairwise(zip(urls, teachers, strict=True)):
        if teacher.parameters > next_teacher.parameters > 0:
            logger.warning(
                "teacher: %s is named before %s as the smaller one, with %s parameters against %s",
                *(url, after, f"{teacher.parameters:,}", f"{next_teacher.parameters:,}"),
            )


def _refuse_too_long(task: TaskData, teacher: Description) -> None:
    """Raises DataError for a text that the teacher would refuse when its turn comes."""
    for name, rows in (("train", task.train), ("validation", task.validation)):
        size, place = longest(rows.instances)
        if size > teacher.max_characters:
            raise DataError(
                f"{name}, row {place + 1}: {size:,} characters; {teacher.name} takes "
                f"{teacher.max_characters:,} at most, and reads {teacher.max_length} tokens of them: shorten "
                "it, or ask a server whose max_characters is higher"
            )


def fingerprints_of(settings: DistillSettings, task: TaskData, student: Anatomy) -> str:
    """Shakes hands without a question; empty where there is no teacher."""

    async def describe(url: str, own: DistillSettings) -> Description:
        async with await Client.connect(url) as client:
            with _about(url):
                _wants(client, own, task, student)
            return client.description

    refuse_shared_key(settings.teacher)
    each = zip(settings.teacher, settings.by_teacher, strict=True)
    teachers = [asyncio.run(describe(url, own)) for url, own in each]
    _matches(teachers, settings, task, student)
    return _joined(teachers)


def _joined(teachers: Sequence[Description]) -> str:
    return ",".join(teacher.fingerprint for teacher in teachers)


@asynccontextmanager
async def _opened(
    settings: DistillSettings, task: TaskData, student: Anatomy, card: RunCard
) -> AsyncIterator[list[Asker]]:
    """One asker a teacher, then the general stage's, then one a teacher for the check, which wants logits
    alone. They share the file of answers and, by its account, the budget."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await Client.connect(url)) for url in settings.teacher]
        database = stack.enter_context(closing(_database(settings.answers)))
        askers = []
        each = zip(settings.teacher, settings.by_teacher, clients, tariffs_of(settings), strict=True)
        for url, own, client, tariff in each:
            with _about(url):
                wants = [*_wants(client, own, task, student), Want()]
            askers.append([_asker(client, want, tariff, settings, card, database) for want in wants])
        yield [one for place in zip(*askers, strict=True) for one in place]


def _asker(
    client: Client,
    want: Want,
    tariff: Tariff,
    settings: DistillSettings,
    card: RunCard,
    database: sqlite3.Connection,
) -> Asker:
    teacher = client.description
    ledger = Ledger(
        database,
        run=card.id,
        teacher=teacher.fingerprint,
        account=settings.account or card.id,
        tariff=tariff,
    )
    budget = Budget(ledger, settings.budget_queries, settings.budget_usd)
    return Asker(client, want, store=Store(database), ledger=ledger, budget=budget)


def _wants(client: Client, settings: DistillSettings, task: TaskData, student: Anatomy) -> list[Want]:
    """Of one teacher, in the usual stage and in the general one. Raises WantError for what it never gives."""
    client.refuse_unknown(task.train.instances)
    teacher = client.description
    insight = _insight(settings, teacher, student)
    usual = _want(settings, teacher.layers, student.layers)
    wants = [usual, insight.want(settings)] if insight else [usual]
    for want in wants:
        client.refuse_beyond(want)
    return wants


def _insight(settings: DistillSettings, teacher: Description, student: Anatomy) -> Insight | None:
    """Raises UserError for a student that cannot be compared."""
    return Insight.between(teacher, student, settings) if settings.general_epochs else None


def _want(settings: DistillSettings, teacher_layers: int, student_layers: int) -> Want:
    """Logits, and of the hidden states only the layers that are matched, pooled by the teacher."""
    if settings.supervision == "none":
        return Want()
    layers = {layer for layer, _ in pairs(settings.layer_map, teacher_layers, student_layers)}
    return Want(layers=tuple(sorted(layers)), pooling=settings.pooling, hidden_dtype=settings.hidden_dtype)


def _database(answers: Path) -> sqlite3.Connection:
    try:
        return open_database(answers)
    except (sqlite3.Error, OSError) as error:
        raise ConfigError(f"answers: {answers} cannot be used: {error}; name another file") from None
