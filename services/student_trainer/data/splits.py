"""A split as a source of rows: files of a folder, or a data set in the layout of the hub."""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import datasets  # type: ignore[import-untyped]
from huggingface_hub import metadata_load

from student_trainer.data import files, names
from student_trainer.data.settings import DataError, DataSettings, Located

Which = Literal["train", "validation"]

_ALIASES = {"validation": ("validation", "valid", "val", "dev", "validation_matched", "dev_matched")}


@dataclass(frozen=True)
class Split:
    """Rows of one split.

    Attributes:
        name: as an error names it.
        version: changes whenever the rows may have changed.
        rows: reads them from the start, each behind its place.
        label_names: as the data set declares them.
    """

    name: str
    version: str
    rows: Callable[[], Iterator[Located]]
    label_names: tuple[str, ...] | None


def open_splits(settings: DataSettings) -> tuple[Split, Split]:
    """Train and validation. Raises DataError if either is missing; lists what is there."""
    opened = _opener(settings)
    return opened("train_split", settings.train_split), opened("validation_split", settings.validation_split)


def open_split(settings: DataSettings, which: Which) -> Split:
    """One alone. Raises DataError if it is missing; lists what is there."""
    setting = f"{which}_split"
    return _opener(settings)(setting, getattr(settings, setting))


def _opener(settings: DataSettings) -> Callable[[str, str], Split]:
    folder = Path(settings.data).expanduser()
    if not folder.is_dir() or settings.subset is not None or _has_card(folder):
        return partial(_of_hub, _downloaded(settings), settings)
    return partial(_of_folder, folder, settings)


def _has_card(folder: Path) -> bool:
    """Whether a README.md says, as on the hub, which files are which split and class."""
    card = folder / "README.md"
    metadata = (metadata_load(card) if card.is_file() else None) or {}
    return "configs" in metadata or "dataset_info" in metadata


def _of_folder(folder: Path, settings: DataSettings, setting: str, split: str) -> Split:
    found = files.find(folder, _ALIASES.get(split, (split,)))
    if not found:
        raise DataError(_no_split(str(folder), split, setting, (path.name for path in folder.iterdir())))
    state = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in found]
    return Split(
        name=f"{split} of {folder}",
        version=hashlib.sha256(repr(state).encode()).hexdigest(),
        rows=lambda: itertools.chain.from_iterable(map(files.read, found)),
        label_names=names.listed(folder, settings) or names.of_label(files.class_names(found[0]), settings),
    )


def _of_hub(loaded: datasets.DatasetDict, settings: DataSettings, setting: str, split: str) -> Split:
    found = next((name for name in _ALIASES.get(split, (split,)) if name in loaded), None)
    if found is None:
        raise DataError(_no_split(settings.data, split, setting, loaded))
    dataset = loaded[found]
    classes = names.class_names(dataset.features)
    return Split(
        name=f"{found} of {settings.data}",
        version=dataset._fingerprint,
        rows=lambda: _rows(f"{settings.data}, {found}", dataset, classes),
        label_names=names.of_label(classes, settings),
    )


def _rows(place: str, dataset: datasets.Dataset, classes: names.ClassNames) -> Iterator[Located]:
    for number, row in enumerate(dataset, 1):
        yield f"{place}, row {number}", names.with_names(row, classes)


def _no_split(place: str, split: str, setting: str, there: Iterable[str]) -> str:
    listed = ", ".join(sorted(there)) or "nothing"
    return (
        f"{place}: no split {split!r}; there is {listed}: set `{setting}` to a split that is there, or add it"
    )


def _downloaded(settings: DataSettings) -> datasets.DatasetDict:
    if settings.data.startswith((".", "/", "~")) and not Path(settings.data).expanduser().is_dir():
        raise DataError(f"data: {settings.data!r} is no folder; name one that is there, or a hub name")
    try:
        return datasets.load_dataset(settings.data, settings.subset)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise DataError(
            f"data: {settings.data!r}, subset {settings.subset!r}: {error.__cause__ or error}; correct "
            "the name or the subset; if the hub is out of reach, give a folder with train.jsonl and "
            "validation.jsonl"
        ) from error
