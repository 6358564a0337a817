"""Variants: what may change, how often, and that a row's are its own."""

import random

from student_trainer.augment.variants import dice_of, variants
from student_trainer.augment.words import Slot
from teacher_api.messages import Instance

TEXT = "the film was funny"
SLOTS = (Slot(4, 8, ("movie", "picture")), Slot(13, 18, ("witty",)))
PAIR = Instance(TEXT, "a funny film")
PAIR_SLOTS = (SLOTS, (Slot(2, 7, ("witty",)), Slot(8, 12, ("movie", "picture"))))


def test_only_slots_change_and_only_to_their_candidates() -> None:
    drawn = {one.text for one in variants(Instance(TEXT), [SLOTS], 300, 0.4, random.Random(1))}
    assert drawn == {
        f"the {first} was {second}" for first in ("film", "movie", "picture") for second in ("funny", "witty")
    }


def test_words_are_replaced_with_the_probability_independently() -> None:
    drawn = [one.text.split() for one in variants(Instance(TEXT), [SLOTS], 20_000, 0.4, random.Random(2))]
    first = sum(words[1] != "film" for words in drawn) / len(drawn)
    second = sum(words[3] != "funny" for words in drawn) / len(drawn)
    both = sum(words[1] != "film" and words[3] != "funny" for words in drawn) / len(drawn)
    movies = sum(words[1] == "movie" for words in drawn) / len(drawn)
    assert abs(first - 0.4) < 0.015  # four deviations
    assert abs(second - 0.4) < 0.015
    assert abs(both - 0.16) < 0.015
    assert abs(movies - 0.2) < 0.015


def test_every_word_goes_at_probability_one() -> None:
    (one,) = variants(Instance(TEXT), [SLOTS[1:]], 1, 1.0, random.Random(0))
    assert one == Instance("the film was witty")


def test_of_a_pair_each_sentence_changes_in_turn_beside_the_other_as_it_was() -> None:
    drawn = list(variants(PAIR, PAIR_SLOTS, 101, 1.0, random.Random(0)))
    assert len(drawn) == 101
    for number, one in enumerate(drawn):
        first, second = one.text != PAIR.text, one.text_pair != PAIR.text_pair
        assert (first, second) == (number % 2 == 0, number % 2 == 1)


def test_a_rows_dice_know_the_seed_and_the_row_only() -> None:
    numbers = [dice_of(seed, row).random() for seed in range(20) for row in range(20)]
    assert len(set(numbers)) == 400
    assert dice_of(3, 4).random() == dice_of(3, 4).random()
    assert dice_of(1, 23).random() != dice_of(12, 3).random()
