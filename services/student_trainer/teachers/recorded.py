"""A recording: a teacher's answers in one file, and a teacher that replays them.

    student-trainer record --data FOLDER --teacher URL --output FILE     writes it
    --teacher recorded:FILE                                              replays it

The file is SQLite without a write-ahead log, so it can be copied alone and lie on a read-only disk:

    PRAGMA application_id = 0x444B4452 ("DKDR"), PRAGMA user_version = 1 (of this format)
    recording  one row: id          32 hexadecimal digits: this recording
                        description DescribeResponse of teacher.proto, in protobuf's JSON
                        want        Want of teacher.proto, in protobuf's JSON: what each answer holds
    answers    key   content key (teacher_api/identity.py) of an instance under that teacher and want
               value its outputs, sealed (teacher_api/sealed.py); what is not intact reads as absent
    ledger, charged, in_flight, wants   what asking cost (costs/) and what was wanted (teachers/store.py),
               unless that was kept in another answers file

Every commit leaves a valid recording of what was answered so far.

A recorded answer is charged as the live teacher would have charged it: one query each time that it is
asked for. So ledgers, budgets and bills of a replayed run equal those of a run on a teacher whose cache
is empty, though replaying costs nothing.
"""

import sqlite3
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from google.protobuf.json_format import MessageToJson, Parse, ParseError

from student_trainer.costs.database import BUSY_TIMEOUT_S, transaction
from student_trainer.errors import UserError
from student_trainer.teachers import Teacher, WantError
from student_trainer.teachers.store import SCHEMA, Store
from student_trainer.teachers.wants import holds, part, shown
from teacher_api.errors import FingerprintMismatchError, InternalError, InvalidRequestError, TeacherError
from teacher_api.identity import ContentKeys
from teacher_api.messages import (
    Answer,
    Description,
    Instance,
    Outputs,
    Usage,
    Want,
    description_from_proto,
    description_to_proto,
    want_from_proto,
    want_to_proto,
)
from teacher_api.v1 import teacher_pb2 as pb

APPLICATION_ID, FORMAT = 0x444B4452, 1
_CHUNK = 512  # answers in memory at once, when all are looked through
_MAKE = (
    "CREATE TABLE recording (id TEXT NOT NULL, description TEXT NOT NULL, want TEXT NOT NULL)",
    SCHEMA,
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {FORMAT}",
)


class RecordingError(UserError):
    """The file cannot be used as this recording; the text names it, what it is, and the remedy."""


class Recording:
    """An open file: whose answers, about what, and the answers. One event loop's, or one thread's."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        """Reads what it is. Raises RecordingError if it is none."""
        self.path, self.database = path, database
        self.id, self.description, self.want = _read(path, database)
        self._keys = ContentKeys(self.description.fingerprint, self.description.max_length, self.want)
        self._store = Store(database, made=True)

    @classmethod
    def open(cls, path: Path) -> Self:
        """The recording that is there, to be read.

        Raises:
            RecordingError: there is none, or it cannot be read.
        """
        if not path.is_file():
            raise RecordingError(f"recording: there is no file {path}; `student-trainer record` makes it")
        database = _connect(path, "rw")  # a writer that died may have left a journal to be played back
        try:
            return cls(path, database)
        except BaseException:
            database.close()
            raise

    @classmethod
    def to_extend(cls, path: Path, description: Description, want: Want) -> Self:
        """The recording of this teacher under this want, made if it is not there.

        Raises:
            RecordingError: the file is something else, or a recording of another teacher or want, or it
                cannot be written.
        """
        database = _connect(path, "rwc")
        try:
            _make(path, database, description, want)
            recording = cls(path, database)
            recording._refuse_another(description, want)
        except BaseException:
            database.close()
            raise
        return recording

    def close(self) -> None:
        self.database.close()

    def __len__(self) -> int:
        """Different questions that are answered."""
        count: int = self.database.execute("SELECT COUNT(*) FROM answers").fetchone()[0]
        return count

    def get_many(self, instances: Sequence[Instance]) -> list[Outputs | None]:
        """What was recorded of each instance, in their order. Raises sqlite3.Error if the file is torn."""
        keys = [self._keys.of(instance) for instance in instances]
        found = self._store.get_many(dict.fromkeys(keys))
        return [found.get(key) for key in keys]

    def lacking(self, instances: Sequence[Instance]) -> int:
        """How many of these have no intact answer."""
        starts = range(0, len(instances), _CHUNK)
        return sum(self.get_many(instances[start : start + _CHUNK]).count(None) for start in starts)

    def put_many(self, instances: Sequence[Instance], answers: Sequence[Answer | None]) -> None:
        """Keeps what was answered, all or nothing."""
        keys = [self._keys.of(instance) for instance in instances]
        answered = zip(keys, answers, strict=True)
        with transaction(self.database):
            self._store.put_many({key: one.outputs for key, one in answered if one and one.outputs})

    def _refuse_another(self, description: Description, want: Want) -> None:
        ours, theirs = self.description.fingerprint, description.fingerprint
        if ours != theirs:
            raise RecordingError(
                f"output: {self.path} holds answers of the teacher {ours[:12]}… ({self.description.name}), "
                f"not of {theirs[:12]}… ({description.name}); ask that one, or name another file"
            )
        if want != self.want:
            raise RecordingError(
                f"output: {self.path} holds {shown(self.want)}, not {shown(want)}; record the same, or "
                "name another file"
            )


class RecordedTeacher(Teacher):
    """Answers what was recorded, at a live teacher's charge: one query for each answer."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._asked = self._charged = 0

    async def describe(self) -> Description:
        return self._recording.description

    async def predict(
        self, instances: Sequence[Instance], want: Want, fingerprint: str, operation: str = ""
    ) -> list[Answer]:
        """Raises InvalidRequestError for a want beyond the recorded one; says what there is."""
        self._check(want, fingerprint)
        try:
            found = self._recording.get_many(instances)
        except sqlite3.Error as error:
            raise InternalError(f"the recording {self._recording.path} cannot be read: {error}") from error
        self._asked += len(instances)
        self._charged += sum(outputs is not None for outputs in found)
        return [
            Answer(error=self._unknown(instance))
            if outputs is None
            else Answer(part(outputs, want), charged=1)
            for instance, outputs in zip(instances, found, strict=True)
        ]

    async def usage(self) -> Usage:
        """Counts since the file was opened."""
        return Usage(asked=self._asked, failed=self._asked - self._charged, charged=self._charged)

    async def close(self) -> None:
        self._recording.close()

    def refuse_beyond(self, want: Want, description: Description) -> None:
        if not holds(self._recording.want, want):
            raise WantError(
                f"teacher: the recording {self._recording.path} has {shown(self._recording.want)}, not "
                f"{shown(want)}; record that into another file, or ask a live teacher"
            )

    def refuse_unknown(self, rows: Sequence[Instance]) -> None:
        path = self._recording.path
        try:
            lacking = self._recording.lacking(rows)
        except sqlite3.Error as error:
            raise RecordingError(f"teacher: {path} cannot be read: {error}; record it anew") from None
        if lacking:
            raise WantError(
                f"teacher: the recording {path} has no answer about {lacking:,} of {len(rows):,} training "
                f"rows; record them as well (student-trainer record with this data and --output {path} goes "
                "on), or take fewer with max_rows"
            )

    def _check(self, want: Want, fingerprint: str) -> None:
        ours = self._recording.description.fingerprint
        if fingerprint not in ("", ours):
            raise FingerprintMismatchError(
                "this recording is of another teacher", field="fingerprint", value=fingerprint, limit=ours
            )
        if not holds(self._recording.want, want):
            raise InvalidRequestError(
                f"the recording {self._recording.path} has not all that is wanted; record that into "
                "another file",
                field="want",
                value=shown(want),
                limit=shown(self._recording.want),
            )

    def _unknown(self, instance: Instance) -> TeacherError:
        path = self._recording.path
        return InvalidRequestError(
            f"the recording {path} has no intact answer to this question; record its data as well: "
            f"student-trainer record --data FOLDER --teacher URL --output {path}",
            field="text",
            value=instance.text,
        )


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    try:
        return sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
    except sqlite3.Error as error:
        raise RecordingError(f"recording: {path} cannot be opened: {error}; name another file") from None


def _make(path: Path, database: sqlite3.Connection, description: Description, want: Want) -> None:
    """Makes an empty file a recording; leaves any other as it is."""
    row = (
        uuid.uuid4().hex,
        MessageToJson(description_to_proto(description)),
        MessageToJson(want_to_proto(want)),
    )
    try:
        if database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
            return
        with transaction(database):
            for statement in _MAKE:
                database.execute(statement)
            database.execute("INSERT INTO recording VALUES (?, ?, ?)", row)
    except sqlite3.Error as error:
        raise RecordingError(f"output: {path} cannot be used: {error}; name another file") from None


def _read(path: Path, database: sqlite3.Connection) -> tuple[str, Description, Want]:
    try:
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if application == APPLICATION_ID and version == FORMAT:
            name, description, want = database.execute("SELECT * FROM recording").fetchone()
            return (
                name,
                description_from_proto(Parse(description, pb.DescribeResponse(), ignore_unknown_fields=True)),
                want_from_proto(Parse(want, pb.Want(), ignore_unknown_fields=True)),
            )
    except (sqlite3.Error, ParseError, TypeError, ValueError, TeacherError) as error:
        raise RecordingError(
            f"recording: {path} is none, or it is damaged: {error}; `student-trainer record` makes one"
        ) from None
    raise RecordingError(
        f"recording: {path} is another program's file, or of another version of this one; "
        "`student-trainer record` makes one"
    )
