"""The table says what the runs came to; literals were computed by hand."""

import io
from dataclasses import replace

import pytest
from made_up import made_up
from rich.console import Console

from student_trainer.experiments.summary import Grid, Spread
from student_trainer.experiments.table import duration, markdown, spread, terminal
from student_trainer.result import Money, Questions, Stage

GRID = Grid.of(
    [
        made_up(strategy, ratio, seed, usd=Money(2458.51, 780.4, 2458.51 * ratio, 780.4 * ratio))
        for seed in (0, 1)
        for strategy, ratio in (("none", 0), ("random", 0.1), ("entropy", 0.1), ("all", 1))
    ]
)


def row(text: str, start: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {start} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_row_as_computed_by_hand() -> None:
    # entropy at .1: .90 + .032 · .55 = .9176 and .9276; Random: .911 and .921; full KD gains .04
    expected = ["entropy", "0.1", "92.3 ± 0.7 (2)", "+0.7 ± 0.0", "44 %", "200", "10 %", "160", "16 %", "160"]
    expected += ["$245.85", "$78.04", "15.8 (two passes)", "14.7", "1:10", "10 %"]
    assert row(markdown(GRID), "entropy") == expected


def test_every_row_has_every_column() -> None:
    table = [line for line in markdown(GRID).splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(GRID.lines)
    assert {line.count("|") for line in table} == {17}


def test_full_kd_names_its_own_scheme() -> None:
    assert "45.1 (full)" in row(markdown(GRID), "full KD")


def test_the_legend_sets_the_full_pass_beside() -> None:
    assert "a full pass costs $2,458.51, cached $780.40." in markdown(GRID)


def test_without_a_price_book_there_are_no_dollars() -> None:
    assert "$" not in markdown(Grid.of([made_up("random", 0.1, 0)]))


def test_a_general_stage_has_columns_of_its_own() -> None:
    """Of the runs that have one; a grid without any has none of them, whatever it costs."""
    stage = Stage(5, Questions(1000, 900, 800, charged=700), 950, 1.5, 1.25)
    later, all_of_it = (replace(stage, questions=Questions(1000, asked)) for asked in (90, 360))
    staged = made_up("entropy", 0.1, 0, stages={"general": stage, "predictions": later})
    full = made_up("all", 1, 0, stages={"general": stage, "predictions": all_of_it})
    text = markdown(Grid.of([staged, full, made_up("none", 0, 0)]))
    titles = row(text, "strategy")
    names = ["of the general stage: asked", "charged there", "units there", "$ there"]
    names += ["of the stage behind it: asked", "of full KD's there"]
    said = [[row(text, start)[titles.index(name)] for name in names] for start in ("entropy", "no KD")]
    assert said == [["900", "700", "950", "$1.50", "90", "25 %"], [""] * 6]
    assert "in the wall time of the one that learnt it" in text
    assert "general" not in markdown(GRID)


def test_a_run_that_its_budget_stopped_is_marked() -> None:
    stopped = markdown(Grid.of([made_up("random", 0.1, 0, stopped=True)]))
    assert "(1)†" in stopped and "stopped by its budget" in stopped
    assert "†" not in markdown(GRID)


def test_the_terminal_s_table_fits_80_columns_uncut() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal(GRID))
    text = console.export_text()
    assert "…" not in text
    assert "92.3 ± 0.7 (2)" in text


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (Spread(-0.04, 0.2), True, "+0.0 ± 0.2"),
        (Spread(-0.06, None), True, "-0.1"),
        (Spread(88.25, 1.06), False, "88.2 ± 1.1"),
        (None, True, ""),
    ],
)
def test_spreads(value: Spread | None, signed: bool, text: str) -> None:
    assert spread(value, signed) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (83.4, "1:23"), (3723, "1:02:03")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
