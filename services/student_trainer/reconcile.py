"""`student-trainer reconcile`: the ledger against the teacher's own log of what it charged.

A run is one operation to its teachers, so what one side has and the other has not is found run by run.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from student_trainer.config import ReconcileSettings
from student_trainer.costs.database import open_database
from student_trainer.costs.ledger import paid
from student_trainer.errors import UserError

Place = tuple[str, str]  # run, teacher's fingerprint
Amounts = tuple[int, int]  # queries, units
NOTHING = (0, 0)

logger = logging.getLogger(__name__)


def reconcile(settings: ReconcileSettings) -> tuple[list[str], int]:
    """What differs, in words, and how many runs were compared.

    All that the ledger has of the log's teachers must be in the log; of other teachers it is said that their
    logs were not given. What the log has beside it may be other callers': it differs only where `key` says
    whose is meant.

    Raises:
        UserError: a file is not there, or not what it should be.
    """
    if not settings.answers.exists():
        raise UserError(f"answers: {settings.answers} is not there; give the answers file of a run")
    charged, ours = _charged(settings.charges, settings.key)
    if settings.key is not None and not ours:
        logger.warning("key: %r has no charge in these logs; mistyped, or not charged yet", settings.key)
    teachers = {teacher for _, teacher in charged}
    with closing(open_database(settings.answers)) as database:
        everything = paid(database)
    for teacher in sorted({teacher for _, teacher in everything} - teachers):
        logger.warning("charges: teacher %s is not compared: none of these logs is its own", teacher[:12])
    ledger = {place: found for place, found in everything.items() if place[1] in teachers}
    places = list(dict.fromkeys([*ledger, *ours]))
    compared = [
        _differences(place, ledger.get(place, NOTHING), charged.get(place, NOTHING)) for place in places
    ]
    return [told for one in compared for told in one], len({run for run, _ in places})


def _differences(place: Place, ledger: Amounts, charged: Amounts) -> Iterator[str]:
    run, teacher = place
    same_queries = ledger[0] == charged[0]
    for what, here, there in zip(("queries", "units"), ledger, charged, strict=True):
        if here != there:
            why = "; do both read one --price-book?" if same_queries else ""
            amounts = f"{what} {here:,} here, {there:,} charged{why}"
            yield f"run {run or '(unnamed)'}, teacher {teacher[:12]}: {amounts}"


def _charged(paths: list[str], key: str | None) -> tuple[dict[Place, Amounts], list[Place]]:
    """Each operation's charges over the logs of all replicas, and the operations of `key`."""
    sums: dict[Place, Amounts] = {}
    ours = []
    for path in paths:
        for number, line in enumerate(_lines(Path(path)), start=1):
            try:
                found = _read(line)
                if found is None:
                    logger.warning("charges: line %d of %s is torn, and left out", number, path)
                    continue
                place = (str(found["operation"]), str(found["teacher"]))
                queries, units = sums.get(place, NOTHING)
                sums[place] = (queries + int(found["queries"]), units + int(found["units"]))
                ours += [place] if found["key"] == key else []
            except (ValueError, TypeError, KeyError):
                raise UserError(f"charges: line {number} of {path} is no charge; give a charge log") from None
    return sums, ours


def _read(line: str) -> Any:
    """None for a line that a power cut has torn: the server then begins another."""
    try:
        return json.loads(line)
    except ValueError:
        if line.startswith('{"time": '):
            return None
        raise


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"charges: {path} cannot be read: {error}; give the server's charge log") from None
