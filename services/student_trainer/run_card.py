"""Whose folder an output folder is: written once at a run's start, checked when it is resumed."""

import json
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from student_trainer.alone import alone
from student_trainer.config import ConfigError, DistillSettings
from student_trainer.result import write_json

_NAME = "run.json"

# Where things are and what may be raised on the way: everything else makes another run.
_FREE = {
    *("data", "output", "resume", "answers", "teacher", "checkpoint_steps", "check_rows", "snapshots"),
    *("account", "budget_queries", "budget_usd", "general_folder"),
}


@dataclass(frozen=True)
class RunCard:
    """A run's name in the ledger, and the settings that it must go on with.

    Used in a `with`: from `begin` to its end the folder is this process' alone.

    Attributes:
        folder: the run's output folder.
        id: unique among all runs that share an answers file.
        recipe: the settings that change its outcome, as plain JSON values.
    """

    folder: Path
    id: str
    recipe: dict[str, Any]
    _held: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def of(cls, settings: DistillSettings) -> Self:
        """The card of the folder's run, resumed or to begin.

        Raises:
            ConfigError: the folder holds a run and `resume` is not set, or a run of other settings.
        """
        folder, recipe = settings.output, recipe_of(settings)
        found = _read(folder)
        if found is None:
            return cls(folder, uuid.uuid4().hex, recipe)
        if not settings.resume:
            raise ConfigError(f"output: {folder} holds a run; set resume, or another folder")
        refuse_changes(_grown(found["recipe"], recipe), recipe)
        return cls(folder, found["id"], recipe)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def begin(self, fingerprint: str, rows: str) -> None:
        """Makes the folder the run's own: once all that could be refused has been looked at.

        Args:
            fingerprint: the teacher's; empty without one.
            rows: the digest of the task's rows.

        Raises:
            ConfigError: the run began with another teacher or other rows, another process is at it, or
                the folder cannot be written.
        """
        self._held.enter_context(alone(self.folder))
        found = _read(self.folder)
        if found is None:
            found = {"id": self.id, "fingerprint": fingerprint, "rows": rows, "recipe": self.recipe}
            write_json(self.folder / _NAME, found)
        self.refuse_other(fingerprint, rows)

    def refuse_other(self, fingerprint: str, rows: str) -> None:
        """Raises ConfigError: the run began with another teacher or other rows, or nothing says which."""
        found = _read(self.folder)
        if found is None:
            raise ConfigError(f"output: {self.folder} has a result and no {_NAME}; name another output")
        if found["fingerprint"] != fingerprint:
            raise ConfigError(
                f"teacher: its fingerprint is {fingerprint[:12]}…, the run in {self.folder} began with "
                f"{found['fingerprint'][:12]}…; serve that one again, or name another output"
            )
        if found["rows"] != rows:
            raise ConfigError(
                f"data: its rows are not those that the run in {self.folder} began with; name another output"
            )


def refuse_changes(began: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises ConfigError, a line for each setting that is not what it was when the folder was begun."""
    changed = [
        f"{name}: what is there began with {began.get(name)!r}, not {now.get(name)!r}"
        for name in sorted(began.keys() | now.keys())
        if began.get(name) != now.get(name)
    ]
    if changed:
        raise ConfigError("\n".join([*changed, "go on with the same settings, or name another output"]))


def _grown(began: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """A recipe with all settings of today: one that is younger than the run had its default."""
    fields = DistillSettings.model_fields
    grown = {name: fields[name].get_default() for name in now if name in fields} | began
    return grown if grown["use_labels"] else grown | {"label_loss": "all"}  # as these settings are since


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / _NAME
    card: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return card


def recipe_of(settings: DistillSettings) -> dict[str, Any]:
    """The settings that change a run's outcome."""
    recipe: dict[str, Any] = settings.model_dump(mode="json", exclude=_FREE)
    return recipe
