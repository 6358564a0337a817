"""Means, deviations and comparisons over seeds, each with figures computed by hand."""

from dataclasses import replace

import pytest
from made_up import made_up

from student_trainer.experiments.summary import Grid, Spread, bills
from student_trainer.result import Money, RunResult


def scored(strategy: str, ratio: float, seed: int, score: float) -> RunResult:
    return made_up(strategy, ratio, seed, scores={"accuracy": score})


def test_deviation_is_the_sample_s() -> None:
    spread = Spread.of([90.0, 92.0, 97.0])  # squares 9, 1, 16; over n - 1: 13
    assert spread.mean == 93
    assert spread.deviation == pytest.approx(13**0.5)


def test_one_value_has_no_deviation() -> None:
    assert Spread.of([90.0]) == Spread(90, None)


def test_no_kd_first_then_by_ratio_with_random_first_then_full_kd() -> None:
    cells = [("all", 1), ("lc", 0.1), ("random", 0.3), ("margin", 0.3), ("random", 0.1), ("none", 0)]
    grid = Grid.of([made_up(strategy, ratio, 0) for strategy, ratio in cells])
    assert [(line.strategy, line.ratio) for line in grid.lines] == [
        *(("none", 0), ("random", 0.1), ("lc", 0.1), ("random", 0.3), ("margin", 0.3), ("all", 1)),
    ]


def test_points_are_the_chosen_metric_times_100() -> None:
    runs = [replace(made_up("all", 1, 3), metric="matthews", scores={"accuracy": 0.9, "matthews": 0.5})]
    grid = Grid.of(runs)
    assert (grid.metric, grid.lines[0].points) == ("matthews", {3: 50.0})


def test_share_of_the_gain_on_the_seeds_that_all_three_have() -> None:
    grid = Grid.of(
        [
            *(scored("none", 0, 0, 0.90), scored("none", 0, 1, 0.80), scored("none", 0, 2, 0.10)),
            *(scored("random", 0.1, 0, 0.91), scored("random", 0.1, 1, 0.83)),
            *(scored("all", 1, 0, 0.94), scored("all", 1, 1, 0.84)),
        ]
    )
    none, random, full = grid.lines
    assert grid.kept(random) == pytest.approx(0.5)  # (1 + 3) / (4 + 4)
    assert grid.kept(none) == 0
    assert grid.kept(full) == 1


@pytest.mark.parametrize("full", [0.909, 0.90, 0.85])
def test_no_gain_has_no_share(full: float) -> None:
    grid = Grid.of([scored("none", 0, 0, 0.90), scored("random", 0.1, 0, 0.91), scored("all", 1, 0, full)])
    assert grid.kept(grid.lines[1]) is None


def test_no_share_before_full_kd_or_a_common_seed_is_there() -> None:
    alone = Grid.of([scored("none", 0, 0, 0.9), scored("random", 0.1, 0, 0.91)])
    apart = Grid.of([scored("none", 0, 0, 0.9), scored("random", 0.1, 0, 0.91), scored("all", 1, 1, 0.94)])
    assert alone.kept(alone.lines[1]) is None
    assert apart.kept(apart.lines[1]) is None


def test_over_random_is_paired_by_seed_and_ratio() -> None:
    grid = Grid.of(
        [
            *(scored("random", 0.1, 0, 0.80), scored("random", 0.1, 1, 0.90), scored("random", 0.3, 0, 0.1)),
            *(scored("margin", 0.1, 0, 0.81), scored("margin", 0.1, 1, 0.93), scored("margin", 0.1, 2, 0.1)),
        ]
    )
    random, margin, _ = grid.lines
    ahead = grid.over_random(margin)
    assert ahead is not None and ahead.deviation is not None
    assert (ahead.mean, ahead.deviation) == (pytest.approx(2), pytest.approx(2**0.5))
    assert grid.over_random(random) is None


def test_bills_are_means_over_the_runs_of_a_ratio() -> None:
    grid = Grid.of(
        [
            made_up("random", 0.1, 0, usd=Money(100, 50, 10, 4)),
            made_up("entropy", 0.1, 0, usd=Money(100, 50, 20, 6)),
            made_up("random", 0.3, 0, usd=Money(100, 50, 30, 9)),
        ]
    )
    assert bills(grid) == {"full pass": (100, 50), "r = 0.3": (30, 9), "r = 0.1": (15, 5)}


def test_no_price_book_no_bills() -> None:
    assert bills(Grid.of([made_up("random", 0.1, 0)])) == {}


def test_a_gain_within_its_own_deviation_has_no_share() -> None:
    runs = [
        scored(strategy, ratio, seed, score)
        for seed, scores in enumerate([(0.90, 0.91, 0.89), (0.80, 0.83, 0.85)])
        for (strategy, ratio), score in zip((("none", 0), ("random", 0.1), ("all", 1)), scores, strict=True)
    ]
    assert Grid.of(runs).kept(Grid.of(runs).lines[1]) is None  # it gains -1 and 5: 2 ± 4.2
