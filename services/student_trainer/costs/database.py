"""The one SQLite file of kept answers, ledger and reservations; what is committed survives a power cut."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

BUSY_TIMEOUT_S = 60.0  # how long another process' transaction is waited for
BUSY_PAUSE_S = 0.01


def open_database(path: Path) -> sqlite3.Connection:
    """Opens or makes the file. The connection may be handed to another thread, not shared by two.

    Raises:
        sqlite3.Error: not a database, or its folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    _write_ahead(database)
    database.execute("PRAGMA synchronous = FULL")
    return database


def _write_ahead(database: sqlite3.Connection) -> None:
    """Tried again while others open or close the file: SQLite waits for nobody here, whatever its timeout."""
    until = monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY  # above: which kind
            if not busy or monotonic() > until:
                raise
            sleep(BUSY_PAUSE_S)


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, and alone: the write lock is taken at the start, so what is read cannot age."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def create(database: sqlite3.Connection, *statements: str) -> None:
    """Makes tables, indexes and triggers that are not there yet."""
    with transaction(database):
        for statement in statements:
            database.execute(statement)
