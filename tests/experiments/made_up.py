"""A grid whose runs are made up: scores and questions are functions of the cell, known by hand."""

from typing import Any

from student_trainer.config import DistillSettings
from student_trainer.experiments.sweep import Cell
from student_trainer.loop import Step, Watch
from student_trainer.result import Money, Questions, RunResult

ROWS, EPOCHS = 1_000, 2
GAIN = {"all": 0.04, "random": 0.02, "entropy": 0.032, "margin": 0.025, "lc": 0.028}


def made_up(strategy: str, ratio: float, seed: int, **other: Any) -> RunResult:
    """No KD scores .90, full KD .94, a strategy between them; a seed adds .01."""
    share = 1 if strategy == "all" else ratio
    score = 0.90 + GAIN.get(strategy, 0) * (0.5 + share / 2) + seed / 100
    asked = round(ROWS * EPOCHS * share)
    distinct = min(ROWS, round(asked * 0.8))
    values: dict[str, Any] = {
        "metric": "accuracy",
        "scores": {"accuracy": score, "f1": score, "matthews": score},
        "steps": 10,
        "stopped": False,
        "questions": Questions(ROWS * EPOCHS, asked, distinct, 0, 0, 0, distinct, 0),
        "usd": Money(),
        "flops": {"full": 45.1, "eq10": 11.3 + ratio * 33.8, "two_pass": 11.3 + ratio * 45.1},
        "scheme": "full" if strategy == "all" else "two_pass",
        "seconds": 60.0 + 100 * ratio,
        "waited": 6.0 + 10 * ratio,
    }
    return RunResult(strategy, ratio, seed, **values | other)


class FakeRun:
    """Runs a cell in no time, as `run` would: its own folder, a model in it, a result that is kept."""

    def __init__(self) -> None:
        self.cells: list[str] = []

    def __call__(self, settings: DistillSettings, watch: Watch) -> RunResult:
        self.cells.append(settings.output.name)
        for folder in ("model", "checkpoint-00000010"):
            (settings.output / folder).mkdir(parents=True, exist_ok=True)
            (settings.output / folder / "weights").write_text("weights")
        watch(Step(9, 32, 3, 3, 0.5, 0.1, 1e-5), 10)
        strategy = settings.strategy if settings.teacher else "none"
        return made_up(strategy, settings.ratio if settings.teacher else 0, settings.seed)


class Nobody:
    """Watches nothing."""

    def began(self, cell: Cell) -> None: ...
    def stepped(self, step: Step, planned: int) -> None: ...
    def ended(self, cell: Cell, result: RunResult) -> None: ...
