"""A suite's cells: rows x data sets x seeds, each with the whole settings of its run.

A later one wins: the defaults (the paper's recipe), the suite, the data set, what the command gives, the row.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from student_trainer.config import ConfigError, DistillSettings, SuiteSettings, made
from student_trainer.errors import UserError
from student_trainer.experiments.results import Recipe
from student_trainer.experiments.suites.suite import Row, Suite, data_sets
from student_trainer.experiments.sweep import GENERAL, PLACES, Cell, without_teacher

# What `run.check` looks at: it is asked once for each combination.
_CHECKED = (
    *("data", "student", "student_layers", "teacher", "teacher_labels", "supervision", "layer_map"),
    *("price_book", "price_feature", "use_labels", "when_spent", "max_length", "pooling", "hidden_dtype"),
    *("general_epochs", "general_attentions"),
)
_BY_NAME = {"price_book": ",", "price_feature": ",", "layer_map": ";"}  # and what is between several
_WEIGHTS = ("config.json", "tokenizer*.json", "vocab*", "merges.txt", "*.model", "*.safetensors")


class Check(Protocol):
    """As `run.check`."""

    def __call__(self, settings: DistillSettings, *, meet: bool = True) -> dict[str, str]: ...


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Attributes:
        suite: with those of its rows that are wanted.
        data: the names of the data sets, in the order in which they were given.
        left_out: what the suite has beside these, in words.
        seeds: repetitions.
        cells: seed by seed, data set by data set, row by row; those that want hidden states before others.
    """

    suite: Suite
    data: list[str]
    left_out: list[str]
    seeds: list[int]
    cells: list[Cell]


def name_of(data: str, row: Row, seed: int) -> str:
    """A cell's, and its folder's below `cells`."""
    plain = [re.sub(r"[^\w.=-]+", "-", name) for name in (data, row.name)]
    return "/".join([*plain, str(seed)])


def plan(settings: SuiteSettings, suite: Suite) -> Plan:
    """Raises ConfigError for all that does not fit together, before anything is looked at on disk."""
    if settings.baselines:
        _refuse_unnamed("baselines", settings.baselines, suite)
        suite = suite.model_copy(update={"baselines": settings.baselines})
    suite, untaught = _taught(_wanted(suite, settings.rows), settings)
    runs = [row for row in suite.rows if not row.only_published]
    _refuse_unknown(settings, suite)
    values = {row.name: _values(row, settings, suite) for row in runs}
    seeds = list(dict.fromkeys(settings.seeds or suite.seeds))
    cells: list[Cell] = []
    checked: set[tuple[str, str]] = set()
    for seed in seeds:
        for data in settings.data_sets:
            # Answers with hidden states serve those who want none, and not the other way round.
            rows = [_cell(row, data, seed, values[row.name](data), settings) for row in runs]
            for own in sorted(rows, key=_plain_answers):
                asked = {(data, url) for url in own.settings.teacher}
                if asked <= checked:  # of each teacher and data set, the first cell looks at it
                    own.settings.check_rows = 0
                checked |= asked
                cells.append(own)
    not_given = [data for data in suite.data if data not in settings.data_sets]
    left_out = {"Not given": not_given, "Without labels there is nothing to learn from": untaught}
    said = [f"{why}, and left out: {', '.join(names)}." for why, names in left_out.items() if names]
    return Plan(suite, list(settings.data_sets), said, seeds, cells)


def _plain_answers(cell: Cell) -> bool:
    """Whether it learns from predictions alone."""
    return cell.settings.supervision == "none" and not cell.settings.general_epochs


def recipes(cells: list[Cell], check: Check) -> dict[str, Recipe]:
    """All that changes each cell's outcome, by its name: teacher, rows and student by what they are, not
    where. Refuses data, a student or a teacher that cannot be used.

    Args:
        check: as `run.check`.
    """
    found: dict[str, dict[str, str]] = {}
    made_of: dict[str, Recipe] = {}
    for cell in cells:
        key = repr([getattr(cell.settings, name) for name in _CHECKED])
        if key not in found:
            found[key] = _checked(cell, check) | {"student": student_of(cell.settings.student)}
        plain = cell.settings.model_dump(mode="json", exclude=PLACES | {"student", "preset"})
        made_of[cell.name] = plain | found[key]
    return made_of


def _checked(cell: Cell, check: Check) -> dict[str, str]:
    """A refusal says which cell it is about: rows differ."""
    try:
        return check(cell.settings)
    except UserError as error:
        raise type(error)(f"{cell.name}: {error}") from None


def student_of(source: str) -> str:
    """A hub name as it is; of a folder, the digest of its configuration, vocabulary and weights."""
    folder = Path(source)
    if not folder.is_dir():
        return source
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _WEIGHTS for path in folder.glob(pattern)}):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _wanted(suite: Suite, names: list[str]) -> Suite:
    """Only these rows, or the rows of these lines, and those that are published beside them."""
    _refuse_unnamed("rows", names, suite)
    if not names:
        return suite
    rows = [row for row in suite.rows if row.only_published or {row.name, row.line} & set(names)]
    return suite.model_copy(update={"rows": rows})


def _refuse_unnamed(setting: str, names: list[str], suite: Suite) -> None:
    """Raises ConfigError for what is neither a row of the suite nor a line."""
    runs = [row for row in suite.rows if not row.only_published]
    lines = dict.fromkeys(row.line for row in runs)
    points = [row.name for row in runs if row.name not in lines]
    if unknown := [name for name in names if name not in {*lines, *points}]:
        known = f"{list(lines)}" + (f", and of a line its points, such as {points[0]!r}" if points else "")
        raise ConfigError(f"{setting}: {unknown} are not in the suite; it has {known}")


def _taught(suite: Suite, settings: SuiteSettings) -> tuple[Suite, list[str]]:
    """Where no label may be used, without the rows that have no teacher either; and the names of these."""
    if settings.use_labels:
        return suite, []
    untaught = [row.name for row in suite.rows if not row.only_published and not suite.teachers_of(row)]
    rows = [row for row in suite.rows if row.name not in untaught]
    if all(row.only_published for row in rows):
        raise ConfigError(f"rows: without labels {untaught} have nothing to learn from; leave use_labels on")
    return suite.model_copy(update={"rows": rows}), untaught


def _refuse_unknown(settings: SuiteSettings, suite: Suite) -> None:
    """A data set of another name is one's own: it has no score of the paper's, and no settings of its own."""
    needed = list(dict.fromkeys(name for row in suite.rows for name in suite.teachers_of(row)))
    missing = [name for name in needed if name not in settings.teachers]
    if missing:
        example = ",".join(f"{name}=URL" for name in needed)
        raise ConfigError(f"teachers: the rows ask {', '.join(missing)}; set teachers, as {example}")


def _values(row: Row, settings: SuiteSettings, suite: Suite) -> Callable[[str], dict[str, Any]]:
    """A row's settings on a data set."""
    fields = settings.model_fields_set & DistillSettings.model_fields.keys()
    given = {name: getattr(settings, name) for name in fields}
    names = suite.teachers_of(row)
    given |= {name: _own(name, given[name], names, settings) for name in _BY_NAME.keys() & given.keys()}

    def on(data: str) -> dict[str, Any]:
        urls = [settings.teachers[name].replace("{data}", data) for name in names]
        return suite.settings | data_sets().get(data, {}) | given | row.settings | {"teacher": urls}

    return on


def _own(setting: str, given: list[str] | str, names: list[str], settings: SuiteSettings) -> list[str] | str:
    """What a row's teachers have of a setting that is given by their names; as it is, if it is not."""
    between = _BY_NAME[setting]
    parts = [one.strip() for one in given.split(between)] if isinstance(given, str) else given
    named = dict(one.split("=", 1) for one in parts if one.partition("=")[0] in settings.teachers)
    if not parts or len(named) < len(parts):
        return given
    if missing := [name for name in names if name not in named]:
        example = between.join(f"{name}=…" for name in settings.teachers)
        raise ConfigError(f"{setting}: {', '.join(missing)} has none; name one for each, as {example}")
    own = [named[name] for name in names]
    return between.join(own) if isinstance(given, str) else own


def _cell(row: Row, data: str, seed: int, values: dict[str, Any], settings: SuiteSettings) -> Cell:
    name = name_of(data, row, seed)
    values = values | {
        "data": settings.data_sets[data],
        "student": settings.student.replace("{data}", data),
        "output": settings.output / "cells" / name,
        "general_folder": settings.general_folder or settings.output / GENERAL,
        "seed": seed,
        "resume": True,
    }
    try:
        found = made(DistillSettings, values if values["teacher"] else without_teacher(values))
    except ConfigError as error:
        raise ConfigError("\n".join(f"row {row.name}: {line}" for line in str(error).splitlines())) from None
    return Cell(name, found, data)
