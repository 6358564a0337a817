"""Variants of an instance by chance, from the candidates of its words."""

import random
from collections.abc import Iterator, Sequence

from student_trainer.augment.words import Slot, in_case_of
from teacher_api.messages import Instance


def variants(
    instance: Instance, slots: Sequence[Sequence[Slot]], times: int, probability: float, dice: random.Random
) -> Iterator[Instance]:
    """Draws so many; equal ones, and the instance itself, may be among them.

    Of a pair, each variant changes one sentence, the first and the second in turn, and keeps the other.

    Args:
        slots: of the text; of a pair, of the text and of its pair.
    """
    for number in range(times):
        if number % len(slots) == 0:
            text = _drawn(instance.text, slots[0], probability, dice)
            yield Instance(text, instance.text_pair)
        else:
            yield Instance(instance.text, _drawn(instance.text_pair or "", slots[1], probability, dice))


def dice_of(seed: int, row: int) -> random.Random:
    """A row's own: its variants are the same in whatever order, chunks or process they are made."""
    return random.Random(f"{seed} {row}")


def _drawn(text: str, slots: Sequence[Slot], probability: float, dice: random.Random) -> str:
    parts, end = [], 0
    for slot in slots:
        if dice.random() < probability:
            candidate = dice.choice(slot.candidates)
            parts += [text[end : slot.start], in_case_of(text[slot.start : slot.end], candidate)]
            end = slot.end
    return "".join([*parts, text[end:]])
