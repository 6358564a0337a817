"""python run_asking.py FOLDER STEPS QUERIES: a run that asks, always one step ahead; its test kills it.

Each step waits for a line (or for the end) of its standard input.
"""

import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from fake_teacher import FakeTeacher, asker_on

from student_trainer.costs.database import open_database
from student_trainer.teachers.asker import Asker
from student_trainer.teachers.asking import Asking
from teacher_api.messages import Instance

BATCH, ROWS, CHECKPOINT = 6, 60, 5


def batch(step: int) -> tuple[list[int], list[Instance]]:
    """Rows of a step; every third row has the text of another one."""
    rows = random.Random(step).sample(range(ROWS), BATCH)
    return rows, [Instance(f"text {row - row % 3 // 2}") for row in rows]


@asynccontextmanager
async def opened(folder: Path, queries: int | None) -> AsyncIterator[list[Asker]]:
    teacher = FakeTeacher(folder / "charges.log", delay_s=0.004)
    with closing(open_database(folder / "answers.sqlite")) as database:
        yield [asker_on(database, teacher, queries=queries)]


def main(folder: Path, steps: int, queries: int | None) -> None:
    mark = folder / "checkpoint"
    start = int(mark.read_text()) if mark.exists() else 0
    with Asking(opened(folder, queries)) as teacher:
        ahead = teacher.submit(start, *batch(start))
        for step in range(start, steps):
            sys.stdin.readline()
            current, ahead = ahead, teacher.submit(step + 1, *batch(step + 1))
            current.result()
            print(step, flush=True)
            if (step + 1) % CHECKPOINT == 0:
                (folder / "new").write_text(str(step + 1))
                (folder / "new").replace(mark)
        ahead.result()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), None if sys.argv[3] == "none" else int(sys.argv[3]))
