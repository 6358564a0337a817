"""Presets: what each stands for, that a setting wins over it, and that it is refused by name."""

import pytest

from student_trainer.config import ConfigError, DistillSettings, parse
from student_trainer.layers import pairs

NEEDED = ["--data", "d", "--output", "o", "--student", "s"]
TWO = ["--teacher", "local:a,local:b"]


def settings(*flags: str) -> DistillSettings:
    return parse(DistillSettings, [*NEEDED, *flags], "distill")


def test_the_released_code() -> None:
    chosen = settings("--preset", "reference", *TWO)
    assert (chosen.rounding, chosen.score_dropout, chosen.label_loss) == ("floor", True, "all")
    assert (chosen.adoption, chosen.divergence) == ("soft-batch", "kl")
    matched = pairs(chosen.layer_map, teacher_layers=12, student_layers=6)
    assert [teacher for teacher, _ in matched] == [0, 2, 4, 6, 8, 10, 12]


def test_the_papers_text() -> None:
    chosen = settings("--preset", "paper", *TWO)
    assert (chosen.rounding, chosen.score_dropout, chosen.label_loss) == ("nearest", False, "selected")
    assert (chosen.adoption, chosen.divergence) == ("soft", "reverse-kl")
    assert pairs(chosen.layer_map, 12, 6) == [(2, 1), (4, 2), (6, 3), (8, 4), (10, 5)]


def test_one_teacher_is_not_chosen_among() -> None:
    assert settings("--preset", "paper", "--teacher", "local:a").adoption == "single"


def test_two_stages() -> None:
    chosen = settings("--preset", "tinybert", "--teacher", "local:a", "--general-epochs", "2")
    assert (chosen.general_epochs, chosen.epochs, chosen.layer_map) == (2, 3, "uniform")
    with pytest.raises(ConfigError, match="general_epochs: the general stage learns from one teacher, not 2"):
        settings("--preset", "tinybert", "--adoption", "soft", *TWO)


def test_what_was_best_for_the_money() -> None:
    chosen = settings("--preset", "dynamic", *TWO)
    assert (chosen.strategy, chosen.replay, chosen.ratio_of) == ("entropy", True, "rows")
    assert (chosen.adoption, chosen.supervision, chosen.rounding) == ("hard", "none", "spread")
    assert settings("--preset", "dynamic", "--teacher", "local:a").adoption == "single"


def test_answers_alone_are_averaged_one_way() -> None:
    """So that a suite knows both ways for one cell."""
    given = ("--average-over", "rows", "--teacher", "local:a")
    assert settings(*given).average_over == "rows"
    assert settings(*given, "--no-use-labels").average_over == "losses"


def test_what_is_set_wins() -> None:
    chosen = settings("--preset", "reference", "--rounding", "nearest", "--adoption", "hard", *TWO)
    assert (chosen.rounding, chosen.adoption, chosen.score_dropout) == ("nearest", "hard", True)


def test_no_such_preset() -> None:
    with pytest.raises(ConfigError, match=r"preset: .*'paper', 'reference', 'tinybert' or 'dynamic'.*'ours'"):
        settings("--preset", "ours")
