"""Answers kept on the trainer's own disk, by content key: what was answered once is never asked again."""

import sqlite3
from collections.abc import Iterable, Mapping
from functools import cached_property

from student_trainer.costs.database import create, transaction
from student_trainer.teachers.wants import holds, part
from teacher_api.identity import ContentKeys
from teacher_api.messages import Description, Instance, Outputs, Want, want_from_proto, want_to_proto
from teacher_api.sealed import seal, unseal_many
from teacher_api.v1 import teacher_pb2 as pb

SCHEMA = "CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
_WANTS = """CREATE TABLE IF NOT EXISTS wants (teacher TEXT, want BLOB, PRIMARY KEY (teacher, want))
    WITHOUT ROWID"""
_KEYS_A_QUERY = 500  # well below SQLite's limit on variables, in any build


class Store:
    """Content key -> sealed outputs. A value that is not intact reads as absent, and is overwritten.

    Args:
        database: open; the store's to use, not to close.
        made: whether the table is there already: then a file that cannot be written will do.
    """

    def __init__(self, database: sqlite3.Connection, *, made: bool = False) -> None:
        self.database = database
        if not made:
            create(database, SCHEMA)

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, Outputs]:
        """The outputs of those questions that were answered before."""
        wanted = list(keys)
        found: dict[bytes, Outputs] = {}
        for start in range(0, len(wanted), _KEYS_A_QUERY):
            part = wanted[start : start + _KEYS_A_QUERY]
            marks = ",".join("?" * len(part))
            query = f"SELECT key, value FROM answers WHERE key IN ({marks})"
            rows = dict(self.database.execute(query, part))
            opened = zip(rows, unseal_many(list(rows), list(rows.values())), strict=True)
            found |= {key: outputs for key, outputs in opened if outputs is not None}
        return found

    def put_many(self, answers: Mapping[bytes, Outputs]) -> None:
        """Keeps the outputs; the caller holds the transaction."""
        rows = [(key, seal(key, outputs)) for key, outputs in answers.items()]
        self.database.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)


class Kept:
    """One teacher's kept answers that have what is wanted: they were asked for just that, or for more.

    An answer that has less is no help: its question is asked again, whole.
    """

    def __init__(self, store: Store, teacher: Description, want: Want) -> None:
        self._store, self._teacher, self._want = store, teacher, want
        self.key_of = self._keys(want).of
        _remember(store.database, teacher.fingerprint, want)

    @cached_property
    def _wider(self) -> list[ContentKeys]:
        """Looked for at the first question: by then all of a run's own wants are known."""
        wants = _wants_of(self._store.database, self._teacher.fingerprint)
        return [self._keys(other) for other in wants if other != self._want and holds(other, self._want)]

    def _keys(self, want: Want) -> ContentKeys:
        return ContentKeys(self._teacher.fingerprint, self._teacher.max_length, want)

    def get_many(self, instances: Mapping[bytes, Instance]) -> dict[bytes, tuple[bytes, Outputs]]:
        """Of those questions, by their keys, that were answered before: the key of what answers them, and
        the wanted part of that."""
        found = {key: (key, outputs) for key, outputs in self._store.get_many(instances).items()}
        for wider in self._wider:
            missing = {wider.of(one): key for key, one in instances.items() if key not in found}
            more = self._store.get_many(missing)
            found |= {missing[key]: (key, part(outputs, self._want)) for key, outputs in more.items()}
        return found


def _remember(database: sqlite3.Connection, teacher: str, want: Want) -> None:
    create(database, _WANTS)
    written = want_to_proto(want).SerializeToString(deterministic=True)
    with transaction(database):
        database.execute("INSERT OR IGNORE INTO wants VALUES (?, ?)", (teacher, written))


def _wants_of(database: sqlite3.Connection, teacher: str) -> list[Want]:
    """All that was ever wanted of a teacher."""
    rows = database.execute("SELECT want FROM wants WHERE teacher = ? ORDER BY want", (teacher,)).fetchall()
    return [want_from_proto(pb.Want.FromString(row)) for (row,) in rows]
