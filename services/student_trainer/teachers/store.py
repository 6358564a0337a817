"""Answers kept on the trainer's own disk, by content key: what was answered once is never asked again."""

import sqlite3
from collections.abc import Iterable, Mapping

from student_trainer.costs.database import create
from teacher_api.messages import Outputs
from teacher_api.sealed import seal, unseal

SCHEMA = "CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
_KEYS_A_QUERY = 500  # well below SQLite's limit on variables, in any build


class Store:
    """Content key -> sealed outputs. A value that is not intact reads as absent, and is overwritten.

    Args:
        database: open; the store's to use, not to close.
        made: whether the table is there already: then a file that cannot be written will do.
    """

    def __init__(self, database: sqlite3.Connection, *, made: bool = False) -> None:
        self._database = database
        if not made:
            create(database, SCHEMA)

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, Outputs]:
        """The outputs of those questions that were answered before."""
        wanted = list(keys)
        found: dict[bytes, Outputs] = {}
        for start in range(0, len(wanted), _KEYS_A_QUERY):
            part = wanted[start : start + _KEYS_A_QUERY]
            marks = ",".join("?" * len(part))
            for key, value in self._database.execute(
                f"SELECT key, value FROM answers WHERE key IN ({marks})", part
            ):
                outputs = unseal(key, value)
                if outputs is not None:
                    found[key] = outputs
        return found

    def put_many(self, answers: Mapping[bytes, Outputs]) -> None:
        """Keeps the outputs; the caller holds the transaction."""
        rows = [(key, seal(key, outputs)) for key, outputs in answers.items()]
        self._database.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)
