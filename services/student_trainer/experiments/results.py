"""`results.jsonl`: a line for each finished cell, on disk before the next cell begins."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from student_trainer.config import ConfigError
from student_trainer.result import RunResult


class Results:
    """Finished cells by name, in the order in which they ended.

    A line counts when it ends with a newline: what a killed process left unfinished is cut off, and its
    cell runs again.

    Args:
        path: the file; made with its folder when the first cell ends.
        recipe: digest of the settings that the rows must have in common.

    Raises:
        ConfigError: a line cannot be read, or has another recipe.
    """

    def __init__(self, path: Path, recipe: str) -> None:
        self._path = path
        self._recipe = recipe
        self._rows = dict(self._read())

    def __contains__(self, cell: str) -> bool:
        return cell in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def all(self) -> list[RunResult]:
        return list(self._rows.values())

    def add(self, cell: str, result: RunResult) -> None:
        """Keeps a cell's result: it has reached the disk when this returns."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps({"cell": cell, "recipe": self._recipe} | asdict(result)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._rows[cell] = result

    def _read(self) -> Iterator[tuple[str, RunResult]]:
        if not self._path.exists():
            return
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self._path, whole)
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            yield self._parse(line, f"{self._path}, line {number}")

    def _parse(self, line: bytes, place: str) -> tuple[str, RunResult]:
        try:
            row: dict[str, Any] = json.loads(line)
            cell, recipe = row.pop("cell"), row.pop("recipe")
            result = RunResult.from_dict(row)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"output: {place} is not a result: {error!r}; remove that line") from None
        if recipe != self._recipe:
            raise ConfigError(
                f"output: {place} was made with another recipe (data, student, teacher or settings); "
                "name another output folder, or remove this one"
            )
        return cell, result
