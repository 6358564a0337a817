"""A task: its training and validation rows in memory-mapped Arrow, its class names, its class ids."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import datasets  # type: ignore[import-untyped]
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute  # type: ignore[import-untyped]

from student_trainer.data import names
from student_trainer.data.columns import Record, records
from student_trainer.data.settings import DataError, DataSettings
from student_trainer.data.splits import Split, Which, open_split, open_splits
from teacher_api.messages import Instance

_FORMAT = "rows-1"  # of the kept copies: another one makes new copies
_FEATURES = datasets.Features({name: datasets.Value("string") for name in ("text", "text_pair", "label")})


class Instances(Sequence[Instance]):
    """Texts of an Arrow table, made into instances as they are asked for; a slice stays in Arrow."""

    def __init__(self, table: datasets.Dataset, places: range) -> None:
        self._table, self._places = table, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Instance: ...
    @overload
    def __getitem__(self, index: slice) -> "Instances": ...
    def __getitem__(self, index: int | slice) -> "Instance | Instances":
        if isinstance(index, slice):
            return Instances(self._table, self._places[index])
        row = self._table[self._places[index]]
        return Instance(row["text"], row["text_pair"])

    @property
    def characters(self) -> list[int]:
        """Of each instance, as `Instance.characters` has it: counted in Arrow, millions in a second."""
        text, pair = (pa.compute.utf8_length(self._table.data.column(name)) for name in ("text", "text_pair"))
        return pa.compute.add(text, pair.fill_null(0)).take(pa.array(self._places)).to_pylist()  # type: ignore[no-any-return]


def longest(instances: Sequence[Instance]) -> tuple[int, int]:
    """Characters of the longest instance, and its place: the first of several."""
    if isinstance(instances, Instances):
        sizes = instances.characters
    else:
        sizes = [instance.characters for instance in instances]
    place = max(range(len(sizes)), key=sizes.__getitem__)
    return sizes[place], place


@dataclass(frozen=True)
class Rows:
    """Instances and their class ids: -1 where a row has no label, None if no row has one."""

    instances: Sequence[Instance]
    labels: list[int] | None

    def __len__(self) -> int:
        return len(self.instances)


@dataclass(frozen=True)
class TaskData:
    """What a run learns from and is measured on; every label is an index into `label_names`.

    `digest` is of all rows and the names: the same for the same data, wherever it lies.
    """

    train: Rows
    validation: Rows
    label_names: tuple[str, ...]
    digest: str


def load(settings: DataSettings) -> TaskData:
    """Reads and checks all rows. Copies in Arrow are kept in the cache of `datasets` (HF_DATASETS_CACHE),
    by the state of the files: a second run reads them at once, several processes share them.

    Raises DataError at the first mistake, with its place and its remedy.
    """
    datasets.disable_progress_bars()
    train, validation = (
        _Table(split, settings, limit)
        for split, limit in zip(open_splits(settings), (settings.max_rows, None), strict=True)
    )
    validation.refuse_unlabelled()
    _refuse_half_paired(train, validation)
    label_names = names.choose(
        settings.label_names,
        train.split.label_names or validation.split.label_names,
        train.seen | validation.seen,
    )
    ids = names.ids(train.seen | validation.seen, label_names)
    return TaskData(
        train.rows(ids, label_names),
        validation.rows(ids, label_names),
        label_names,
        digest=_sha256([label_names, train.digest(), validation.digest()]),
    )


def load_texts(settings: DataSettings, which: Which = "train") -> Instances:
    """What a split says, labelled or not: all that is needed to ask about it, or to know what that costs."""
    datasets.disable_progress_bars()
    limit = settings.max_rows if which == "train" else None
    return _Table(open_split(settings, which), settings, limit).instances


def _sha256(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _refuse_half_paired(train: "_Table", validation: "_Table") -> None:
    if train.paired != validation.paired:
        pairs, texts = (train, validation) if train.paired else (validation, train)
        raise DataError(
            f"{pairs.split.name} has pairs, {texts.split.name} has single texts: set `pair_column` to the "
            "column of the second text, or to null"
        )


class _Table:
    """The checked rows of one split, in Arrow: text, text_pair, label (text or null)."""

    def __init__(self, split: Split, settings: DataSettings, limit: int | None) -> None:
        self.split, self._settings, self._limit = split, settings, limit
        self._dataset = self._kept()

    @property
    def instances(self) -> Instances:
        return Instances(self._dataset, range(len(self._dataset)))

    @cached_property
    def seen(self) -> set[str]:
        return set(self._dataset.unique("label")) - {None}

    @property
    def paired(self) -> bool:
        return self._dataset[0]["text_pair"] is not None

    def digest(self) -> str:
        """Of the rows themselves, whatever file or format they came from."""
        digest = hashlib.sha256()
        for batch in self._dataset.data.to_batches(max_chunksize=10_000):
            digest.update(json.dumps(batch.to_pydict(), sort_keys=True).encode())
        return digest.hexdigest()

    def refuse_unlabelled(self) -> None:
        """Raises DataError at the first row without a label."""
        if self._column("label").null_count:
            where = self._place_of(None)
            raise DataError(
                f"{where}: no label ({self._settings.label_column}); every row of validation needs one: "
                "correct `label_column` or the row, or set `validation_split` to a split with labels"
            )

    def rows(self, ids: dict[str, int], label_names: tuple[str, ...]) -> Rows:
        """With class ids. Raises DataError for a label that has none, or if all rows are of one class."""
        for label in sorted(self.seen - ids.keys()):
            raise DataError(
                f"{self._place_of(label)}: label {label!r} is none of {len(label_names)} classes "
                f"({', '.join(label_names)}): correct it, or add it to label_names"
            )
        if len(self.seen) == 1:
            raise DataError(
                f"{self.split.name}: every label is {min(self.seen)!r}; two classes at least are needed"
                + (
                    "; max_rows takes the first rows only: raise it, or shuffle the file"
                    if self._limit
                    else ""
                )
            )
        return Rows(self.instances, self._ids(ids) if self.seen else None)

    def _ids(self, ids: dict[str, int]) -> list[int]:
        labels = sorted(ids, key=ids.__getitem__)
        found = pa.compute.index_in(self._column("label"), pa.array(labels, pa.string()))
        return found.fill_null(-1).to_pylist()  # type: ignore[no-any-return]

    def _column(self, name: str) -> pa.ChunkedArray:
        return self._dataset.data.column(name)

    def _place_of(self, label: str | None) -> str:
        """Where the first row with this label is: the rows are read again, for an error only."""
        return next(where for where, record in self._records() if record["label"] == label)

    def _records(self) -> Iterator[tuple[str, Record]]:
        return records(self._settings, itertools.islice(self.split.rows(), self._limit))

    def _generate(self) -> Iterator[Record]:
        empty = True
        for _, record in self._records():
            empty = False
            yield record
        if empty:
            raise DataError(f"{self.split.name}: no rows: add some, or choose another split")

    def _kept(self) -> datasets.Dataset:
        settings = self._settings
        asked = (
            _FORMAT,
            self.split.version,
            settings.text_column,
            settings.pair_column,
            settings.label_column,
            self._limit,
        )
        try:
            return datasets.Dataset.from_generator(
                self._generate,
                features=_FEATURES,
                fingerprint=hashlib.sha256(repr(asked).encode()).hexdigest()[:32],
            )
        except (datasets.exceptions.DatasetGenerationError, OSError) as error:
            cause = error.__cause__ or error
            if not isinstance(cause, OSError):
                raise cause from None  # as it was raised while reading: a DataError
            raise DataError(
                f"{datasets.config.HF_DATASETS_CACHE}: {cause}: no place to keep {self.split.name}; set "
                "HF_DATASETS_CACHE to a folder that can be written and has room"
            ) from cause
