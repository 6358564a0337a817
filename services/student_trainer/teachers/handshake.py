"""Before the first question: does this teacher classify into the student's classes?"""

from collections.abc import Sequence

from student_trainer.data.names import plain
from student_trainer.errors import UserError


class HandshakeError(UserError):
    """The teacher and the task do not fit; the text names both sides and the remedy."""


def permutation(teacher: Sequence[str], task: Sequence[str]) -> list[int]:
    """The teacher's class at each of the task's classes, matched by name.

    A silent guess here would train the student on the wrong classes (MNLI's order differs between
    published checkpoints), so names must agree, in whatever order.

    Raises:
        HandshakeError: another number of classes, or other names.
    """
    if len(teacher) != len(task):
        raise HandshakeError(
            f"teacher: it has {len(teacher)} classes {list(teacher)}, the data {len(task)} {list(task)}; "
            "ask a teacher of this task, or correct the data's labels (label_column, label_names)"
        )
    position = {plain(name): index for index, name in enumerate(teacher)}
    unknown = [name for name in task if plain(name) not in position]
    if unknown or len(position) < len(teacher):
        raise HandshakeError(
            f"teacher: its classes {list(teacher)} are not the data's {list(task)}; set teacher_labels to "
            "its classes' names in its order (of several teachers, id2label in its config.json), or "
            "label_names to the data's"
        )
    return [position[plain(name)] for name in task]
