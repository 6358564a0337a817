"""Recordings: what they replay, what they refuse, and that they charge as a live teacher would."""

import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from fake_teacher import AWS, DESCRIPTION, FakeTeacher, account, asker_on, instances, logits

from student_trainer.costs.database import open_database
from student_trainer.teachers import TeacherUrlError, connect
from student_trainer.teachers.client import Client, Patience
from student_trainer.teachers.recorded import RecordedTeacher, Recording, RecordingError
from teacher_api.errors import FingerprintMismatchError, InternalError, InvalidRequestError
from teacher_api.messages import Answer, Description, Instance, Outputs, Usage, Want

TEXTS = instances("one", "two", "three")
WIDE = Want(layers=(1, 2), pooling="mean")


def hidden(text: str, layer: int) -> np.ndarray:
    return np.linspace(-layer, len(text), DESCRIPTION.hidden_size, dtype=np.float32)


def answer(instance: Instance, want: Want) -> Answer:
    states = {layer: hidden(instance.text, layer) for layer in want.layers}
    return Answer(Outputs(logits(instance.text), states), charged=1)


def recorded(path: Path, want: Want, texts: list[Instance] = TEXTS) -> Path:
    with closing(Recording.to_extend(path, DESCRIPTION, want)) as recording:
        recording.put_many(texts, [answer(instance, want) for instance in texts])
    return path


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """Logits and two layers of three texts; a file whose name must survive being a URL."""
    return recorded(tmp_path / "100 % of it?.rec", WIDE)


async def test_what_describe_says_is_all_there(wide: Path) -> None:
    async with await Client.connect(f"recorded:{wide}") as client:
        assert client.description == DESCRIPTION


@pytest.mark.parametrize(
    "want",
    [
        WIDE,
        Want(),
        Want(layers=(2,), pooling="mean"),
        Want(layers=(2, 1), pooling="mean"),
        Want(logits=False, layers=(1,), pooling="mean", hidden_dtype="float16"),
        Want(pooling="cls", hidden_dtype="float16"),  # of no layer: neither matters
    ],
)
async def test_all_or_less_than_was_recorded_is_answered(want: Want, wide: Path) -> None:
    async with await Client.connect(f"recorded:{wide}") as client:
        answers = await client.ask([TEXTS[2], TEXTS[0], TEXTS[2]], want)
        assert await client.usage() == Usage(asked=3, charged=3)
    for one, text in zip(answers, ("three", "one", "three"), strict=True):
        assert (one.error, one.cached, one.charged) == (None, False, 1)
        assert (one.outputs.logits is not None) == want.logits
        assert not want.logits or np.array_equal(one.outputs.logits, logits(text))
        assert tuple(one.outputs.hidden) == want.layers
        for layer, values in one.outputs.hidden.items():
            assert values.dtype == want.hidden_dtype
            assert np.array_equal(values, hidden(text, layer).astype(want.hidden_dtype))


@pytest.mark.parametrize(
    ("has", "want", "there"),
    [
        (Want(), Want(layers=(1,)), "limit logits)"),
        (WIDE, Want(layers=(1, 3), pooling="mean"), "layers 1, 2 (pooling mean, float32)"),
        (WIDE, Want(layers=(1,), pooling="cls"), "layers 1, 2 (pooling mean, float32)"),
        (Want(layers=(1,), hidden_dtype="float16"), Want(layers=(1,)), "layers 1 (pooling cls, float16)"),
    ],
)
async def test_more_than_was_recorded_is_refused(has: Want, want: Want, there: str, tmp_path: Path) -> None:
    path = recorded(tmp_path / "file", has)
    with closing(Recording.open(path)) as recording:
        teacher = RecordedTeacher(recording)
        with pytest.raises(InvalidRequestError) as refusal:
            await teacher.predict(TEXTS, want, "")
        assert str(path) in str(refusal.value)
        assert there in str(refusal.value)
        assert await teacher.usage() == Usage()


async def test_another_fingerprint_is_refused(wide: Path) -> None:
    with closing(Recording.open(wide)) as recording, pytest.raises(FingerprintMismatchError):
        await RecordedTeacher(recording).predict(TEXTS, WIDE, "0" * 64)


async def test_what_was_not_recorded_fails_alone_at_once_and_free(wide: Path) -> None:
    unknown = [Instance("four"), Instance("one", ""), Instance("One")]
    patience = Patience(seconds=3600)  # a retry would never end
    async with await Client.connect(f"recorded:{wide}", patience=patience) as client:
        found, *missing = await client.ask([TEXTS[0], *unknown], Want())
        assert await client.usage() == Usage(asked=4, failed=3, charged=1)
    assert found.outputs is not None
    for one in missing:
        assert isinstance(one.error, InvalidRequestError)
        assert str(wide) in str(one.error)
        assert "record --data" in str(one.error)
        assert one.charged == 0
    assert "four" in str(missing[0].error)


async def test_a_damaged_answer_is_none_and_can_be_recorded_again(wide: Path) -> None:
    with closing(sqlite3.connect(wide)) as database, database:
        ((key, value),) = database.execute("SELECT key, value FROM answers ORDER BY key LIMIT 1").fetchall()
        damaged = value[:-1] + bytes([value[-1] ^ 1])
        database.execute("UPDATE answers SET value = ? WHERE key = ?", (damaged, key))
    async with await Client.connect(f"recorded:{wide}") as client:
        answers = await client.ask(TEXTS, WIDE)
    assert [one.charged for one in answers].count(0) == 1
    assert sum(isinstance(one.error, InvalidRequestError) for one in answers) == 1
    recorded(wide, WIDE)
    async with await Client.connect(f"recorded:{wide}") as client:
        assert [one.charged for one in await client.ask(TEXTS, WIDE)] == [1, 1, 1]


async def test_a_torn_file_is_an_error_of_the_teacher(tmp_path: Path) -> None:
    path = recorded(tmp_path / "file", Want(), [Instance(f"text {i}") for i in range(2000)])
    async with await Client.connect(f"recorded:{path}") as client:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)
        answers = await client.ask([Instance(f"text {i}") for i in range(100)], Want())
    assert {type(one.error) for one in answers} == {InternalError}
    assert str(path) in str(answers[0].error)


def foreign(kind: str, path: Path) -> None:
    if kind == "text":
        path.write_text("label\ttext\n" * 100)
    elif kind == "answers":
        with closing(open_database(path)) as database:
            asker_on(database, FakeTeacher(path.with_name("log")))
    elif kind == "newer":
        with closing(sqlite3.connect(recorded(path, Want()))) as database:
            database.execute("PRAGMA user_version = 2")
    elif kind == "damaged":
        with closing(sqlite3.connect(recorded(path, Want()))) as database, database:
            database.execute("UPDATE recording SET description = '{'")
    elif kind == "folder":
        path.mkdir()


@pytest.mark.parametrize("kind", ["text", "answers", "newer", "damaged", "folder"])
def test_another_file_is_refused_and_left_as_it_is(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    foreign(kind, path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(RecordingError, match=str(path)):
        connect(f"recorded:{path}")
    with pytest.raises(RecordingError, match=str(path)):
        Recording.to_extend(path, DESCRIPTION, Want())
    assert before == (path.read_bytes() if path.is_file() else None)


def test_no_file_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no file"):
        connect(f"recorded:{tmp_path / 'file'}")
    assert not list(tmp_path.iterdir())
    with pytest.raises(TeacherUrlError, match="recorded:FILE"):
        connect("recorded:")


def test_another_teacher_or_want_goes_into_another_file(wide: Path) -> None:
    other = Description(**DESCRIPTION.__dict__ | {"fingerprint": "e" * 64, "name": "other"})
    with pytest.raises(RecordingError, match=r"fffffffff.*eeeeeeee.*another file"):
        Recording.to_extend(wide, other, WIDE)
    with pytest.raises(RecordingError, match=r"layers 1, 2 .*, not logits;"):
        Recording.to_extend(wide, DESCRIPTION, Want())


async def test_it_is_read_where_nothing_can_be_written(wide: Path) -> None:
    """As from a read-only disk: no journal, no lock file beside it."""
    with closing(sqlite3.connect(f"{wide.as_uri()}?mode=ro", uri=True)) as database:
        outputs = await RecordedTeacher(Recording(wide, database)).predict(TEXTS, Want(), "")
    assert [one.charged for one in outputs] == [1, 1, 1]
    assert [path.name for path in wide.parent.iterdir()] == [wide.name]


async def test_it_is_read_while_it_grows(tmp_path: Path) -> None:
    path = recorded(tmp_path / "file", Want(), TEXTS[:1])
    async with await Client.connect(f"recorded:{path}") as client:
        assert (await client.ask(TEXTS[1:2], Want()))[0].error
        recorded(path, Want(), TEXTS[1:])
        assert (await client.ask(TEXTS[1:2], Want()))[0].error is None


@pytest.mark.parametrize("limits", [{}, {"queries": 2}, {"usd": Decimal("0.0006")}])
async def test_the_ledger_of_a_replay_is_that_of_a_live_teacher(limits: dict, tmp_path: Path) -> None:
    """By row: outcome, units, queries, dollars; with a budget, refused at the same question."""
    path = recorded(tmp_path / "file", Want())
    asked = [TEXTS[0], TEXTS[1], TEXTS[0], TEXTS[2]]
    ledgers = []
    async with await Client.connect(f"recorded:{path}") as client:
        for name, teacher in (("live", FakeTeacher(tmp_path / "log")), ("replayed", client)):
            with closing(open_database(tmp_path / f"{name}.sqlite")) as database:
                asker = asker_on(database, teacher, tariff=AWS, **limits)
                first = await asker.ask(0, range(4), asked)
                again = await asker.ask(1, range(4), asked)
                assert [one and one.charged for one in again] == [one and 0 for one in first]
                ledgers.append(account(database))
    assert ledgers[0] == ledgers[1]
    assert {row[3] for row in ledgers[0]} >= ({"charged", "refused"} if limits else {"charged", "joined"})
