"""The append-only file of charges: one JSON object a line, written before its answer leaves. No texts."""

import json
import logging
from collections.abc import Iterator
from decimal import Decimal
from io import RawIOBase
from pathlib import Path
from typing import Any

from teacher_api.errors import NotReadyError
from teacher_server.quota.budgets import NANO, Charge

log = logging.getLogger(__name__)


class ChargeLog:
    """Every charge of this server; without a path, none is written.

    Attributes:
        available: whether all could be written when last tried.
    """

    def __init__(self, path: Path | None) -> None:
        """Raises OSError: the file cannot be written."""
        self._file: RawIOBase | None = path.open("ab", buffering=0) if path else None
        self._unwritten = b"\n" if path and _torn(path) else b""
        self.available = True

    def check(self) -> None:
        """Raises NotReadyError as long as a charge could not be written: none may be missing."""
        if self._unwritten and not self._written():
            raise NotReadyError("the charge log cannot be written, so nothing is asked", retry_after_ms=1000)

    def write(self, line: dict[str, Any]) -> None:
        """Where it fails it is tried again before the next question."""
        if self._file:
            self._unwritten += json.dumps(line).encode() + b"\n"
            self._written()

    def _written(self) -> bool:
        assert self._file
        try:
            count = self._file.write(self._unwritten)
        except OSError as error:
            log.error("the charge log cannot be written", extra={"fault": error.strerror})
            count = 0
        self._unwritten = self._unwritten[count:]
        self.available = not self._unwritten
        return self.available

    def close(self) -> None:
        if self._file:
            self._file.close()


def charges(path: Path) -> Iterator[tuple[str, str, Charge]]:
    """Key, day and charge of each line. A line that a power cut has torn is left out."""
    with path.open("rb") as file:
        for line in file:
            try:
                found = json.loads(line)
            except ValueError:
                log.warning("the charge log holds a torn line")
                continue
            nano = int(Decimal(found["usd"]) * NANO)
            yield found["key"], found["day"], Charge(found["queries"], found["units"], nano)


def _torn(path: Path) -> bool:
    """Whether the last line has no end. A device has no size, and no lines."""
    if not (size := path.stat().st_size):
        return False
    with path.open("rb") as file:
        file.seek(size - 1)
        return file.read(1) != b"\n"
