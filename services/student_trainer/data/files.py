"""Files of a split, and their rows: (where, row) with `where` as an error names it."""

import csv
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import datasets  # type: ignore[import-untyped]
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]

from student_trainer.data import names
from student_trainer.data.names import ClassNames
from student_trainer.data.settings import DataError, Located, Row, shown

_COLA_HEADER = ["source", "label", "mark", "sentence"]
_SHARD = r"(?:[-_.](?P<number>\d+)(?:-of-(?P<count>\d+))?)?"


def find(folder: Path, stems: tuple[str, ...]) -> list[Path]:
    """Files of the first of `stems` that the folder, or its `data` sub-folder, has; [] if none.

    Raises DataError if several sets of files could be meant, or a shard is missing.
    """
    for stem, base in itertools.product(stems, (folder, folder / "data")):
        named = re.compile(re.escape(stem) + _SHARD)
        flat = {path: match for path in _files(base) if (match := named.fullmatch(path.stem))}
        inside = _files(base / stem)
        _refuse_ambiguous(stem, flat, inside)
        _refuse_incomplete(flat)
        if flat or inside:
            return [*flat, *inside]
    return []


def read(path: Path) -> Iterator[Located]:
    """Rows of one file, in order. Raises DataError where the file is broken."""
    try:
        yield from _READERS[path.suffix.lower()](path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read ({error}): restore the file, or its permissions") from None


def class_names(path: Path) -> ClassNames:
    """What `datasets` wrote into a Parquet file about its columns of classes; {} of other files."""
    if path.suffix.lower() != ".parquet":
        return {}
    try:
        schema = pa.parquet.read_schema(path)
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a Parquet file ({error}): write it again") from None
    return names.class_names(datasets.Features.from_arrow_schema(schema)) if schema.metadata else {}


def _files(folder: Path) -> list[Path]:
    known = (path for path in folder.glob("*") if path.suffix.lower() in _READERS)
    return sorted(path for path in known if path.is_file())


def _refuse_ambiguous(stem: str, flat: Mapping[Path, re.Match[str]], inside: list[Path]) -> None:
    kinds = {f"{stem}{'-N' if match['number'] else ''}{path.suffix}" for path, match in flat.items()}
    kinds |= {f"{stem}/*{path.suffix}" for path in inside}
    if len(kinds) > 1:
        folder = [*flat, *inside][0].parent
        raise DataError(f"{folder}: {stem!r} could be {' or '.join(sorted(kinds))}: keep one of them")


def _refuse_incomplete(shards: Mapping[Path, re.Match[str]]) -> None:
    for path, match in shards.items():
        if match["count"] and int(match["count"]) != len(shards):
            raise DataError(
                f"{path}: {len(shards)} of {int(match['count'])} shards are there: add the others"
            )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines, with their ends. Only a line feed ends one: texts may hold a lone carriage return."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}, line {number}: not UTF-8 ({error.reason}): convert the file"
                ) from None


def _json(path: Path) -> Iterator[Located]:
    """JSON lines, or one list of objects."""
    first = next((line for _, line in _lines(path) if line.strip()), "")
    return _json_list(path) if first.lstrip().startswith("[") else _json_lines(path)


def _json_lines(path: Path) -> Iterator[Located]:
    for number, line in _lines(path):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, _object(where, _parsed(where, line))


def _json_list(path: Path) -> Iterator[Located]:
    items = _parsed(str(path), "".join(line for _, line in _lines(path)))
    if not isinstance(items, list):
        raise DataError(f"{path}: a list of objects is wanted, or one object a line")
    for number, item in enumerate(items, 1):
        where = f"{path}, row {number}"
        yield where, _object(where, item)


def _parsed(where: str, text: str) -> object:
    try:
        parsed: object = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{where}: broken JSON ({error}): {shown(text)}; correct or delete it") from None
    return parsed


def _object(where: str, item: object) -> Row:
    if not isinstance(item, dict):
        raise DataError(f'{where}: {shown(item)} is not an object such as {{"text": …, "label": …}}')
    return item


def _csv(path: Path) -> Iterator[Located]:
    """Comma separated, quoted as RFC 4180."""
    reader = csv.reader((line for _, line in _lines(path)), strict=True)
    try:
        header = next(reader, [])
        for fields in reader:
            if fields:
                yield _zipped(f"{path}, line {reader.line_num}", header, fields)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}; is a quote left open?") from None


def _tsv(path: Path) -> Iterator[Located]:
    """Tab separated as GLUE's files: a quote is a character like any other."""
    lines: Iterator[tuple[int, list[str]]] = (
        (number, line.rstrip("\r\n").split("\t")) for number, line in _lines(path) if line.strip("\r\n")
    )
    number, first = next(lines, (0, [""]))
    header = first
    if len(first) == len(_COLA_HEADER) and first[1] in ("0", "1") and first[2] in ("", "*"):
        header, lines = _COLA_HEADER, itertools.chain([(number, first)], lines)
    for number, fields in lines:
        yield _zipped(f"{path}, line {number}", header, fields)


def _zipped(where: str, header: list[str], fields: list[str]) -> Located:
    if len(fields) != len(header):
        raise DataError(f"{where}: {len(fields)} fields under a header of {len(header)}: {shown(fields)}")
    return where, dict(zip(header, fields, strict=True))


def _parquet(path: Path) -> Iterator[Located]:
    classes = class_names(path)
    with pa.parquet.ParquetFile(path) as file:
        batches = (batch.to_pylist() for batch in file.iter_batches(1024))
        for number, row in enumerate(itertools.chain.from_iterable(batches), 1):
            yield f"{path}, row {number}", names.with_names(row, classes)


_READERS: dict[str, Callable[[Path], Iterator[Located]]] = {
    ".jsonl": _json,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
}
