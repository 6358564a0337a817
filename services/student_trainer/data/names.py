"""Names of the classes, and the class ids of labels: text in, ids out."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import datasets  # type: ignore[import-untyped]

from student_trainer.data.columns import label_candidates
from student_trainer.data.settings import DataError, DataSettings, Row, shown

ClassNames = Mapping[str, tuple[str, ...]]  # column -> its classes, in order of the ids

_MOST_INFERRED = 1000  # classes: more of them are rather numbers of rows, or sentences


def class_names(features: datasets.Features | None) -> ClassNames:
    """Columns of classes among a data set's features."""
    columns = (features or {}).items()
    return {name: tuple(kind.names) for name, kind in columns if isinstance(kind, datasets.ClassLabel)}


def with_names(row: Row, names: ClassNames) -> Row:
    """The row with the names of its classes in place of their ids; what has no name stays as it is."""
    return {column: _named(value, names.get(column, ())) for column, value in row.items()}


def _named(value: object, names: tuple[str, ...]) -> object:
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def listed(folder: Path, settings: DataSettings) -> tuple[str, ...] | None:
    """Names that a folder declares beside its rows: labels.txt, labels.json or dataset_info.json."""
    if (path := folder / "labels.txt").is_file():
        return _checked(str(path), path.read_text("utf-8-sig").splitlines())
    if (path := folder / "labels.json").is_file():
        return _checked(str(path), _json(path))
    if (path := folder / "dataset_info.json").is_file():
        return of_label(_from_info(path), settings)
    return None


def of_label(classes: ClassNames, settings: DataSettings) -> tuple[str, ...] | None:
    """Names of the label's column, if it is a column of classes."""
    return next((classes[column] for column in label_candidates(settings) if column in classes), None)


def _from_info(path: Path) -> ClassNames:
    try:
        return class_names(datasets.DatasetInfo.from_directory(str(path.parent)).features)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: not a dataset_info.json ({error}): correct or delete it") from None


def _json(path: Path) -> object:
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise DataError(f"{path}: broken JSON ({error})") from None


def _checked(where: str, names: object) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise DataError(f"{where}: {shown(names)}: a list of the class names is wanted")
    if len(set(names)) < max(2, len(names)):
        raise DataError(f"{where}: {shown(names)}: two or more class names are wanted, each once")
    return tuple(names)


def choose(given: list[str] | None, declared: tuple[str, ...] | None, seen: Iterable[str]) -> tuple[str, ...]:
    """Names given in the settings, else declared by the data set, else the labels themselves, sorted.

    Raises DataError if labels that are numbers are not 0..C-1: a class may be missing, or they count from 1.
    """
    if given is not None:
        return _checked("label_names", given)
    labels = sorted(seen)
    return declared or (_numbers(labels) if all(map(_is_id, labels)) else _words(labels))


def _numbers(labels: list[str]) -> tuple[str, ...]:
    ordered = sorted(labels, key=int)
    if len(ordered) > 1 and ordered != [str(index) for index in range(len(ordered))]:
        raise DataError(
            f"the labels {shown(ordered)} are not 0 to C-1 without a gap: give label_names, in order of the "
            "class ids, or these numbers themselves"
        )
    return tuple(ordered)


def _words(labels: list[str]) -> tuple[str, ...]:
    if len(labels) > _MOST_INFERRED:
        raise DataError(
            f"{len(labels)} different labels, such as {shown(labels[:3])}: is `label_column` the right "
            "column? If so, give label_names"
        )
    return tuple(labels)


def ids(seen: Iterable[str], names: tuple[str, ...]) -> dict[str, int]:
    """Class id of every label that has one.

    Labels are names if all of them are names, else ids if all of them are whole numbers: decided for
    the whole task, never row by row, so that names such as 2, 1, 0 cannot be mixed up with ids.
    """
    by_name = {name: index for index, name in enumerate(names)}
    labels = set(seen)
    if labels <= by_name.keys() or not all(map(_is_id, labels)):
        return by_name
    return {str(index): index for index in range(len(names))}


def _is_id(label: str) -> bool:
    return label.isascii() and label.isdigit()


def plain(name: str) -> str:
    """As names of classes are compared between data, teachers and checkpoints."""
    return name.strip().casefold()
