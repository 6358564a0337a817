"""`results.jsonl`: a line for each finished cell, on disk before the next cell begins."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from pydantic_core import PydanticUndefined

from student_trainer.config import ConfigError, DistillSettings
from student_trainer.result import RunResult

Recipe = Mapping[str, Any]  # all that changes a cell's outcome, as plain JSON values


class Results:
    """Finished cells, in the order in which they ended; several processes may add to one file.

    A line counts when it ends with a newline: what a killed process left unfinished is cut off, and its
    cell runs again.

    Args:
        path: the file; made with its folder when the first cell ends.
        recipe_of: the recipe that a cell of this name must have; None: it is not looked at.

    Raises:
        ConfigError: a line cannot be read, or has another recipe; says what differs.
    """

    def __init__(self, path: Path, recipe_of: Callable[[str], Recipe | None]) -> None:
        self._path = path
        self._recipe_of = recipe_of
        self._rows: dict[str, RunResult] = {}
        self._look()

    def __contains__(self, cell: str) -> bool:
        return self.get(cell) is not None

    def __len__(self) -> int:
        return len(self._rows)

    def all(self) -> list[RunResult]:
        return list(self._rows.values())

    def get(self, cell: str) -> RunResult | None:
        return self._rows.get(self._key(cell, self._recipe_of(cell)))

    def add(self, cell: str, result: RunResult) -> None:
        """Keeps a cell's result: it has reached the disk when this returns."""
        recipe = self._recipe_of(cell)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file, _alone_with(file):
            file.write(json.dumps({"cell": cell, "recipe": recipe} | asdict(result)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._rows[self._key(cell, recipe)] = result

    @contextmanager
    def claim(self, cell: str, *, wait: bool) -> Iterator[bool]:
        """Whether no other process has claimed this cell; then none can before this ends, or the process.

        What others have finished by then is known: a cell that one waited for has its result, or none yet.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_name(f".{self._path.name}.claims").open("ab") as claims:
            claimed = _claimed(claims, self._key(cell, self._recipe_of(cell)), wait)
            if claimed:
                self._look()
            yield claimed

    def _look(self) -> None:
        """Reads what is there."""
        self._rows = {self._key(cell, recipe): result for cell, recipe, result in self._read()}

    def _key(self, cell: str, recipe: Recipe | None) -> str:
        """What a cell's result is found by: here its name."""
        return cell

    def _read(self) -> Iterator[tuple[str, Recipe, RunResult]]:
        if not self._path.exists():
            return
        with self._path.open("rb+") as file, _alone_with(file):
            content = file.read()
            whole = content.rfind(b"\n") + 1
            file.truncate(whole)
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            yield self._parse(line, f"{self._path}, line {number}")

    def _parse(self, line: bytes, place: str) -> tuple[str, Recipe, RunResult]:
        try:
            row: dict[str, Any] = json.loads(line)
            cell, recipe = row.pop("cell"), dict(row.pop("recipe"))
            result = RunResult.from_dict(row)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"output: {place} is not a result: {error!r}; remove that line") from None
        self._refuse_another(cell, recipe, place)
        return cell, recipe, result

    def _refuse_another(self, cell: str, recipe: Recipe, place: str) -> None:
        wanted = self._recipe_of(cell)
        if wanted is not None and (changes := differences(recipe, wanted)):
            refusal = (
                f"output: {place} ({cell}) was made with another recipe; name another output folder, or "
                "take what is there away"
            )
            raise ConfigError("\n".join([refusal, *changes]))


class SharedResults(Results):
    """Of several suites, in one file: a cell is found by its recipe, whatever suite it was run for.

    Args:
        path: as above.
        recipe_of: of each cell of this suite.
        enough: whether a result that was kept for another suite has what this one draws.
    """

    def __init__(
        self,
        path: Path,
        recipe_of: Callable[[str], Recipe | None],
        enough: Callable[[RunResult], bool] = lambda _: True,
    ) -> None:
        super().__init__(path, recipe_of)
        self._enough = enough

    def get(self, cell: str) -> RunResult | None:
        result = super().get(cell)
        return result if result is not None and self._enough(result) else None

    def _key(self, cell: str, recipe: Recipe | None) -> str:
        if recipe is None:
            return cell
        said = {name: value for name, value in recipe.items() if value != _default(name)}
        return json.dumps(said, sort_keys=True)

    def _refuse_another(self, cell: str, recipe: Recipe, place: str) -> None:
        """Another recipe is another cell."""


@contextmanager
def _alone_with(file: IO[Any]) -> Iterator[None]:
    """While another process adds a line, its unfinished half is not to be cut off."""
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _claimed(claims: IO[Any], key: str, wait: bool) -> bool:
    """Locks the key's own byte of a file that stays empty, until that is closed."""
    place = int.from_bytes(sha256(key.encode()).digest()[:6])
    try:
        fcntl.lockf(claims, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, place)
    except BlockingIOError:
        return False
    return True


def differences(before: Recipe, now: Recipe) -> list[str]:
    """A line for each value that is not what it was. A setting younger than the result had its default."""
    found = []
    for name in sorted(before.keys() | now.keys()):
        was, is_now = (recipe.get(name, _default(name)) for recipe in (before, now))
        if was != is_now:
            found.append(f"{name}: it was {was!r}, now {is_now!r}")
    return found


def _default(name: str) -> Any:
    field = DistillSettings.model_fields.get(name)
    default = None if field is None else field.get_default()
    return None if default is PydanticUndefined else default
