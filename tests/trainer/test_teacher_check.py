"""What a teacher's answers about validation rows say of it, and when they are warned of."""

import numpy as np
import pytest

from student_trainer.teacher_check import TeacherCheck
from teacher_api.messages import Answer, Outputs


def answered(predicted: list[int], classes: int = 3) -> list[Answer | None]:
    logits = np.eye(classes, dtype=np.float32)[predicted]
    return [Answer(outputs=Outputs(logits=row)) for row in logits]


def test_scores_are_of_the_rows_that_were_answered_in_the_task_s_order() -> None:
    """The teacher's classes 2, 0, 1 are the task's 0, 1, 2."""
    answers = [*answered([2, 0, 1, 1]), None]
    check = TeacherCheck.of(answers, [0, 1, 2, 0, 0], order=[2, 0, 1])
    assert check.rows == 4
    assert check.scores["accuracy"] == pytest.approx(3 / 4)
    assert check.chance == 2 / 4
    assert TeacherCheck.of([None], [0], order=[0, 1]) == TeacherCheck()


@pytest.mark.parametrize(
    ("right", "rows", "warned"),
    [
        (10, 30, True),  # as often as its commonest class
        (11, 30, False),
        (6, 19, False),  # too few to tell
        (0, 19, True),  # none of that many
        (0, 8, True),
        (0, 7, False),
        (0, 0, False),
    ],
)
def test_what_is_no_better_than_chance_is_warned_of(right: int, rows: int, warned: bool) -> None:
    labels = [row % 3 for row in range(rows)]
    predicted = [label if row < right else (label + 1) % 3 for row, label in enumerate(labels)]
    check = TeacherCheck.of(answered(predicted) if rows else [], labels, order=[0, 1, 2])
    assert bool(check.warning) == warned


def test_who_is_always_right_is_not_warned_of_where_all_rows_are_of_one_class(recwarn) -> None:
    check = TeacherCheck.of(answered([1] * 20), [1] * 20, order=[0, 1, 2])
    assert check.scores["accuracy"] == check.chance == 1
    assert check.warning is None
    assert not recwarn.list
