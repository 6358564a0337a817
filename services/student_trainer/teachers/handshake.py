"""Before the first question: does this teacher classify into the student's classes, and is it any good?"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from student_trainer.data.names import plain
from student_trainer.errors import UserError
from teacher_api.messages import Answer


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
            "ask another teacher, or set label_names to the data's classes"
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


def worse_than_chance(
    answers: Sequence[Answer | None], labels: Sequence[int], order: Sequence[int]
) -> str | None:
    """A warning if the teacher agrees with the labels no more often than their commonest class would."""
    pairs = [
        (int(np.argmax(answer.outputs.logits[list(order)])), label)
        for answer, label in zip(answers, labels, strict=True)
        if answer and answer.outputs and answer.outputs.logits is not None and label >= 0
    ]
    if not pairs:
        return None
    right = sum(guess == label for guess, label in pairs)
    chance = Counter(label for _, label in pairs).most_common(1)[0][1]
    if right > chance:
        return None
    return (
        f"the teacher is right on {right} of {len(pairs)} validation rows, always guessing one class on "
        f"{chance}: are its classes in another order, or is it another task's?"
    )
