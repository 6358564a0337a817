"""The words of a text that may be replaced, and a replacement in the word's own case."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # type: ignore[import-untyped]

# Letters between spaces, hyphens and other marks. Apostrophes belong to a word: `n't` is one, and no `n`.
_WORD = re.compile(r"(?<![\w'’])[^\W\d_]+(?:['’][^\W\d_]+)*(?!\w)")


@dataclass(frozen=True, slots=True)
class Slot:
    """A word at text[start:end], and what may stand in its place, best first."""

    start: int
    end: int
    candidates: tuple[str, ...]


class Proposer(Protocol):
    """Knows candidates.

    Attributes:
        fingerprint: another one may propose other candidates.
    """

    fingerprint: str

    def __call__(self, texts: list[str]) -> list[list[Slot]]:
        """For each text, its replaceable words that have candidates, in their order."""


def replaceable(text: str) -> Iterator[tuple[int, int]]:
    """Where the words are, but stop words (scikit-learn's, English) and contractions, which often negate."""
    for found in _WORD.finditer(text):
        if found[0].isalpha() and found[0].lower() not in ENGLISH_STOP_WORDS:
            yield found.span()


def is_word(text: str) -> bool:
    """Whether it may be a candidate: letters alone, no marks, numbers or special tokens."""
    return text.isalpha()


def best_others(word: str, ranked: Iterator[str], count: int) -> tuple[str, ...]:
    """The first `count` of the ranked candidates that are not the word itself, in whatever case."""
    others = (one for one in ranked if one.casefold() != word.casefold())
    return tuple(itertools.islice(others, count))


def in_case_of(word: str, candidate: str) -> str:
    """The candidate written as the word was: Film, FILM, film. One with capitals of its own keeps them."""
    if not candidate.islower() or word.islower():
        return candidate
    if word.isupper() and len(word) > 1:
        return candidate.upper()
    return candidate.capitalize() if word[0].isupper() else candidate
