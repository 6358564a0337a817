"""Which words may be replaced, and how a replacement is written."""

import pytest

from student_trainer.augment.words import in_case_of, replaceable


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The film is not very funny .", ["film", "funny"]),
        ("It isn't John's, don’t worry: ca n't", ["worry"]),
        ("A re-imagining (1930s) of B2B at 3rd_place", ["imagining"]),
        ("Über-schöne Filme", ["Über", "schöne", "Filme"]),
        ("NOT THE FILM", ["FILM"]),
        ("", []),
        (" . ?! 42", []),
    ],
)
def test_words_without_stop_words_contractions_and_numbers(text: str, words: list[str]) -> None:
    assert [text[start:end] for start, end in replaceable(text) if end - start > 2] == words


@pytest.mark.parametrize(
    ("word", "candidate", "written"),
    [
        ("film", "movie", "movie"),
        ("Film", "movie", "Movie"),
        ("FILM", "movie", "MOVIE"),
        ("X", "movie", "Movie"),
        ("iPod", "movie", "movie"),
        ("town", "Paris", "Paris"),
        ("Town", "McDonald", "McDonald"),
    ],
)
def test_a_candidate_takes_the_words_case(word: str, candidate: str, written: str) -> None:
    assert in_case_of(word, candidate) == written
