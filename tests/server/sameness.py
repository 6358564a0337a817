"""Sets of texts, asked of a server that remembers and of one that computes anew, in other batches."""

import asyncio
import random
from collections.abc import Iterator, Sequence

import numpy as np
from faces import OverGrpc
from processes import ServerProcess

from teacher_api.messages import Instance

WORDS = ("a", "teacher", "answers", "every", "question", "once", "un", "believ", "able", "café", "漢字", ".")


async def largest_difference(remembers: ServerProcess, computes: ServerProcess, sets: int) -> float:
    """Between a remembered logit and the one computed anew, in another order and other company.

    That what is remembered is bitwise what was computed for it is asserted on the way.
    """
    faces, left = (OverGrpc(remembers), OverGrpc(computes)), iter(range(sets))
    worst = await asyncio.gather(*[differences(*faces, left) for _ in range(8)])
    for face in faces:
        await face.close()
    return max(map(max, worst))


async def differences(remembers: OverGrpc, computes: OverGrpc, left: Iterator[int]) -> list[float]:
    return [await difference(remembers, computes, random.Random(number)) for number in left]


async def difference(remembers: OverGrpc, computes: OverGrpc, rng: random.Random) -> float:
    asked = [some_text(rng) for _ in range(rng.randint(1, 12))]
    first, again = await remembers.ask(asked), await remembers.ask(asked)
    assert all(one["cached"] for one in again)
    assert [one["logits"] for one in again] == [one["logits"] for one in first]

    order = rng.sample(range(len(asked)), len(asked))
    company = [some_text(rng) for _ in range(rng.randint(0, 6))]
    anew = await computes.ask([*company, *[asked[place] for place in order]])
    return gap([first[place]["logits"] for place in order], [one["logits"] for one in anew[len(company) :]])


def gap(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
    return float(np.abs(np.asarray(one) - np.asarray(other)).max())


def some_text(rng: random.Random) -> Instance:
    def words(most: int) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(0, most)))

    return Instance(f"{rng.random()} {words(60)}", rng.choice([None, words(20)]))
