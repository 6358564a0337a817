"""The file of the training rows as it grows: whole chunks only, gone on with after a kill.

`train.jsonl.writing` becomes `train.jsonl` when it is whole. `augment.json` says how much of it counts:
what stands behind that was written by a process that died, and is cut off.
"""

import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from student_trainer.config import ConfigError
from student_trainer.result import write_json
from student_trainer.run_card import refuse_changes
from teacher_api.messages import Instance

_CARD = "augment.json"
_BATCH = 10_000  # rows that are read at a time
_OURS = {".lock", "augment.writing"}  # all that a process can leave behind before it has begun


@dataclass(frozen=True)
class State:
    """How far the file is.

    Attributes:
        done: rows of the source whose variants are written.
        size: bytes that count.
        rows: lines in these.
        dropped: duplicates that were left out.
    """

    done: int = 0
    size: int = 0
    rows: int = 0
    dropped: int = 0


class RowsFile:
    """One for each output folder.

    Args:
        recipe: what the rows depend on, as plain JSON values: it must stay the same.

    Raises:
        ConfigError: the folder's rows are of another recipe, or not all there.
    """

    def __init__(self, folder: Path, recipe: dict[str, Any]) -> None:
        self._folder, self._recipe, self.state = folder, recipe, State()
        self._final = folder / "train.jsonl"
        self._growing = folder / "train.jsonl.writing"
        if (card := folder / _CARD).exists():
            found = json.loads(card.read_text())
            refuse_changes(found["recipe"], recipe)
            self.state = State(**found["state"])
        if not self.finished:
            self._begin()

    @property
    def finished(self) -> bool:
        return self._final.exists()

    def batches(self) -> Iterator[list[Instance]]:
        """Of the rows that it has."""
        with self._growing.open("rb") as lines:
            rows = map(json.loads, lines)
            while batch := list(itertools.islice(rows, _BATCH)):
                yield [Instance(row["text"], row.get("text_pair")) for row in batch]

    def append(self, lines: list[str], done: int, dropped: int) -> None:
        """A chunk, on disk before it counts."""
        with self._growing.open("ab") as file:
            file.write("".join(lines).encode())
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        self.state = State(done, size, self.state.rows + len(lines), self.state.dropped + dropped)
        self._write_card()

    def finish(self) -> None:
        self._growing.replace(self._final)

    def _begin(self) -> None:
        self._growing.touch()
        if self._growing.stat().st_size < self.state.size:
            raise ConfigError(f"output: {self._growing} lacks rows that it had; take another folder")
        os.truncate(self._growing, self.state.size)
        self._write_card()

    def _write_card(self) -> None:
        write_json(self._folder / _CARD, {"recipe": self._recipe, "state": asdict(self.state)})


def refuse_foreign(folder: Path, resume: bool) -> None:
    """Raises ConfigError if the folder has something in it that is not to be gone on with."""
    there = {path.name for path in folder.iterdir()} - _OURS if folder.is_dir() else set()
    if there and not resume:
        raise ConfigError(f"output: {folder} is not empty; set resume to go on there, or another folder")
    if there and _CARD not in there:
        raise ConfigError(f"output: {folder} holds no augmented rows to go on with; name another folder")
