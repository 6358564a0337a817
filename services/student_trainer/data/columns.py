"""Which columns hold the text, its pair and the label; a row of any source as one record."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from student_trainer.data.settings import DataError, DataSettings, Located, Row, shown

Record = dict[str, str | None]  # text, text_pair, label

PAIRS = (
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("#1 String", "#2 String"),
)
TEXTS = ("text", "sentence", "sentence1", "premise", "question", "question1", "#1 String")
LABELS = ("label", "gold_label", "Quality", "is_duplicate", "labels")
_UNLABELLED = ("", "-", "-1")  # an empty field; SNLI's pairs without agreement; GLUE's test splits


@dataclass(frozen=True)
class Columns:
    """Column names. Of `labels`, the first that a row has: a JSON line may leave its label out."""

    text: str
    text_pair: str | None
    labels: tuple[str, ...]

    def record(self, where: str, row: Row) -> Record:
        label = next((name for name in self.labels if name in row), None)
        return {
            "text": _text(where, self.text, row),
            "text_pair": None if self.text_pair is None else _text(where, self.text_pair, row),
            "label": None if label is None else _label(where, label, row[label]),
        }


def records(settings: DataSettings, rows: Iterator[Located]) -> Iterator[tuple[str, Record]]:
    """Every row, checked, behind its place. The first one tells which columns there are."""
    columns: Columns | None = None
    for where, row in rows:
        columns = columns or choose(settings, where, row)
        if settings.pair_column == "auto" and not columns.text_pair and dict(PAIRS).get(columns.text) in row:
            raise DataError(
                f"{where}: a pair, after rows that are none: set `pair_column`, or correct the rows"
            )
        yield where, columns.record(where, row)


def choose(settings: DataSettings, where: str, row: Row) -> Columns:
    """Columns by the settings, or by the names that are usual. Raises DataError if a text is missing."""
    text, pair = _pair(settings, row)
    for setting, column in (("text_column", text), ("pair_column", pair)):
        if column is not None and column not in row:
            raise DataError(_missing(where, column, row, setting))
    return Columns(text, pair, label_candidates(settings))


def label_candidates(settings: DataSettings) -> tuple[str, ...]:
    return LABELS if settings.label_column == "auto" else (settings.label_column,)


def _pair(settings: DataSettings, row: Row) -> tuple[str, str | None]:
    text, pair = settings.text_column, settings.pair_column
    if pair == "auto":
        known = (both for both in PAIRS if text in ("auto", both[0]))
        first, second = next((both for both in known if set(both) <= row.keys()), (text, None))
        return (first, second) if first != "auto" else (_single(row), None)
    return (_single(row, pair) if text == "auto" else text), pair


def _single(row: Row, but: str | None = None) -> str:
    return next((name for name in TEXTS if name in row and name != but), "auto")


def _missing(where: str, column: str, row: Row, setting: str) -> str:
    wanted = f"none of {', '.join(TEXTS)}" if column == "auto" else f"no column {column!r}"
    return f"{where}: {wanted}; the columns are {', '.join(map(repr, row))}: set `{setting}` to one of them"


def _text(where: str, column: str, row: Row) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        remedy = (
            "`pair_column: null` reads the first texts alone"
            if column in dict(PAIRS).values()
            else "correct it"
        )
        raise DataError(
            f"{where}: column {column!r}: {shown(value)} is not a text; {remedy}, or delete the row"
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{where}: column {column!r}: {shown(value)} has half a surrogate pair: replace it"
        ) from None
    return value


def _label(where: str, column: str, value: object) -> str | None:
    """A label as text: 1, 1.0 and true are "1"; None if the row is unlabelled."""
    if value is None or (isinstance(value, float) and math.isnan(value)):  # a table of floats has no null
        return None
    if isinstance(value, (int, float)) and value % 1 == 0:
        value = str(int(value))
    if not isinstance(value, str):
        raise DataError(
            f"{where}: column {column!r}: {shown(value)} is no class: a whole number or a name is wanted"
        )
    return None if value in _UNLABELLED else value
