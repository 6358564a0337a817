"""`student-trainer record`: asks a teacher about all rows, and keeps the answers in a file to replay.

    student-trainer record --data FOLDER --teacher grpc://host:port --output teacher.rec

It is a spending command like any other: each question passes the kept answers, the ledger and the budget.
These are in the recording's own file, or in the answers file of an account that other runs share. Run
again, it asks only what the recording has not; each chunk is kept as a whole or not at all.
"""

import asyncio
import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from student_trainer.alone import alone
from student_trainer.config import ConfigError, RecordSettings
from student_trainer.costs.budget import Budget
from student_trainer.costs.database import open_database
from student_trainer.costs.ledger import Ledger, Total, totals
from student_trainer.data import DataSettings, load_texts
from student_trainer.tariffs import named
from student_trainer.teachers.asker import Asker
from student_trainer.teachers.client import Client
from student_trainer.teachers.recorded import Recording
from student_trainer.teachers.store import Store
from teacher_api.messages import Answer, Description, Instance, Want
from teacher_api.prices import UNPRICED, Tariff

CHUNK = 512  # rows in memory at once, and in one transaction: four requests of a teacher's usual 128
SPLITS = ("train", "validation")  # a split's place here is its step in the ledger

Watch = Callable[[int, int], None]  # told of the rows that are done, and how many there are
Texts = dict[str, Sequence[Instance]]
Keep = Callable[[Sequence[Instance], Sequence[Answer | None]], None]


@dataclass(frozen=True)
class Recorded:
    """What a recording has, and what this run of it came to.

    Attributes:
        answers: different questions that the file answers.
        rows: of the data, that were to be asked about.
        stopped: whether the budget was spent before all were.
        totals: the run's questions by outcome, from its first start on.
    """

    answers: int
    rows: int
    stopped: bool
    totals: list[Total]


def record(settings: RecordSettings, watch: Watch) -> Recorded:
    """Asks what the recording has not, until all is there or the budget is spent.

    Raises:
        DataError, PriceBookError, TeacherUrlError, RecordingError, ConfigError: before anything is spent.
        TeacherError: a question failed for good; all that was answered is kept.
    """
    book, feature = settings.price_book, settings.price_feature
    tariff = named("price_book", book, feature) if book else UNPRICED
    texts: Texts = {which: load_texts(settings, which) for which in SPLITS if which in settings.splits}
    # Two of a kind would take each other's reservations for those of the dead.
    with alone(settings.output, settings.output.with_name(f".{settings.output.name}.lock")):
        return asyncio.run(_record(settings, texts, tariff, watch))


async def _record(settings: RecordSettings, texts: Texts, tariff: Tariff, watch: Watch) -> Recorded:
    async with await Client.connect(settings.teacher) as client:
        want = _want(settings, client.description)
        client.refuse_beyond(want)
        with (
            closing(Recording.to_extend(settings.output, client.description, want)) as recording,
            _account(settings.answers, recording) as database,
        ):
            ledger = Ledger(
                database,
                run=_run_of(settings, recording),
                teacher=client.description.fingerprint,
                account=settings.account or recording.id,
                tariff=tariff,
            )
            budget = Budget(ledger, settings.budget_queries, settings.budget_usd)
            asker = Asker(client, want, store=Store(database), ledger=ledger, budget=budget)
            # In its own file the asker has kept them already, together with the ledger's rows.
            keep = recording.put_many if settings.answers else _nothing
            stopped = await _ask_all(asker, recording, keep, texts, watch)
            rows = sum(map(len, texts.values()))
            return Recorded(len(recording), rows, stopped, totals(database, ledger.run))


def _want(settings: RecordSettings, teacher: Description) -> Want:
    """Raises ConfigError for what this teacher cannot give."""
    for name, layers, first in (("layers", settings.layers, 0), ("attentions", settings.attentions, 1)):
        beyond = [layer for layer in layers if layer > teacher.layers]
        if beyond:
            raise ConfigError(
                f"{name}: {beyond} are not there; {teacher.name} has {first} to {teacher.layers}"
            )
    return Want(
        layers=tuple(settings.layers),
        pooling=settings.pooling,
        hidden_dtype=settings.hidden_dtype,
        attentions=tuple(settings.attentions),
    )


async def _ask_all(asker: Asker, recording: Recording, keep: Keep, texts: Texts, watch: Watch) -> bool:
    """Chunk by chunk; whether the budget stopped it."""
    done, total = 0, sum(map(len, texts.values()))
    for which, instances in texts.items():
        for rows in _chunks(len(instances)):
            chunk = list(instances[rows.start : rows.stop])
            if not await _ask(asker, recording, keep, SPLITS.index(which), rows, chunk):
                return True
            done += len(rows)
            watch(done, total)
    return False


async def _ask(
    asker: Asker, recording: Recording, keep: Keep, step: int, rows: range, chunk: list[Instance]
) -> bool:
    """Asks what the recording has not; whether it has all of these rows now."""
    found = recording.get_many(chunk)
    missing = [place for place, outputs in enumerate(found) if outputs is None]
    asked = [chunk[place] for place in missing]
    answers = await asker.ask(step, [rows[place] for place in missing], asked)
    keep(asked, answers)
    return None not in answers


def _nothing(*_: object) -> None:
    pass


def _chunks(rows: int) -> Iterator[range]:
    return (range(start, min(start + CHUNK, rows)) for start in range(0, rows, CHUNK))


def _run_of(settings: RecordSettings, recording: Recording) -> str:
    """A run for each recording and data: going on, it finds its own reservations in the ledger again."""
    data = settings.model_dump_json(include=set(DataSettings.model_fields))
    return hashlib.sha256(f"{recording.id} {data}".encode()).hexdigest()[:32]


@contextmanager
def _account(answers: Path | None, recording: Recording) -> Iterator[sqlite3.Connection]:
    """Where the ledger is: an answers file, or the recording itself."""
    if answers is None:
        yield recording.database
        return
    try:
        database = open_database(answers)
    except (sqlite3.Error, OSError) as error:
        raise ConfigError(f"answers: {answers} cannot be used: {error}; name another file") from None
    with closing(database):
        yield database


@contextmanager
def bar(console: Console) -> Iterator[Watch]:
    """Gives the function to be told of the rows that are done."""
    columns = (TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def conclude(console: Console, output: Path, recorded: Recorded) -> None:
    """What the file has, and what that cost."""
    outcomes = ", ".join(f"{total.count:,} {total.outcome}" for total in recorded.totals)
    usd = sum(total.usd for total in recorded.totals)
    lines = [
        f"{output} answers {recorded.answers:,} different questions; {recorded.rows:,} rows were to be asked",
        f"asked by this recording: {outcomes or 'nothing'}" + (f"; ${usd:,.2f}" if usd else ""),
        "budget spent: the same command with a larger one goes on"
        if recorded.stopped
        else f"replay it as the teacher recorded:{output}",
    ]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
