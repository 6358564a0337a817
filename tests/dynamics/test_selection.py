"""How many are asked, and which: the table of literals, and what must hold for any batch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from student_trainer.dynamics.selection import generator_for, how_many, random_doubt, select


@pytest.mark.parametrize(
    ("n", "ratio", "nearest", "floor"),
    [
        (32, 0.1, 3, 3),
        (16, 0.1, 2, 1),
        (9, 0.1, 1, 0),
        (1, 0.1, 1, 0),
        (100, 0.29, 29, 29),
        (32, 0.5, 16, 16),
        (5, 0.5, 3, 2),
        (32, 1.0, 32, 32),
        (7, 1, 7, 7),
    ],
)
def test_how_many_of_a_batch(n: int, ratio: float, nearest: int, floor: int) -> None:
    assert how_many(n, ratio) == nearest
    assert how_many(n, ratio, "floor") == floor


@pytest.mark.parametrize(
    ("ratio", "first"), [(0.01, [0, 0, 0, 1]), (0.1, [3, 3, 3, 3]), (0.33, [10, 11, 10, 11])]
)
def test_what_is_left_over_goes_to_the_next_step(ratio: float, first: list[int]) -> None:
    steps = [how_many(32, ratio, "spread", step) for step in range(1000)]
    assert steps[:4] == first
    assert sum(steps) == round(32 * ratio * 1000)


@pytest.mark.parametrize("ratio", [0, -0.1, 1.0001, float("nan")])
def test_a_ratio_outside_of_0_to_1_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="ratio"):
        how_many(32, ratio)


def test_the_most_doubtful_come_first_and_ties_keep_the_batch_order() -> None:
    assert select(torch.tensor([0.1, 0.9, 0.5, 0.9, 0.2]), 3).tolist() == [1, 3, 2]


@given(
    doubts=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40, unique=True),
    k=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
def test_a_permuted_batch_selects_the_same_instances(doubts: list[float], k: int, seed: int) -> None:
    doubt = torch.tensor(doubts)
    order = torch.randperm(len(doubt), generator=torch.Generator().manual_seed(seed))
    assert doubt[select(doubt, k)].tolist() == doubt[order][select(doubt[order], k)].tolist()


def test_random_choice_depends_on_seed_and_step_alone() -> None:
    noise = [
        random_doubt(32, generator_for(seed, step)).tolist()
        for seed, step in [(1, 7), (1, 7), (1, 8), (2, 7)]
    ]
    assert noise[0] == noise[1]
    assert noise[0] != noise[2]
    assert noise[0] != noise[3]


def test_random_choice_is_uniform() -> None:
    counts = torch.zeros(10)
    for step in range(4000):
        counts[select(random_doubt(10, generator_for(0, step)), 1)] += 1
    assert counts.min() > 320  # 400 expected, deviation 19
    assert counts.max() < 480
