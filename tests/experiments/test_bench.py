"""The whole command with made-up runs: checked first, reported after every cell, gone on with."""

import io
from dataclasses import replace

import pytest
from made_up import FakeRun, made_up
from rich.console import Console

from student_trainer.alone import alone
from student_trainer.config import BenchSettings, ConfigError, DistillSettings
from student_trainer.errors import UserError
from student_trainer.experiments.bench import bench
from student_trainer.experiments.grid import plan
from student_trainer.experiments.progress import estimates
from student_trainer.loop import Watch
from student_trainer.result import RunResult

FILES = ("results.jsonl", "table.md", "curve.svg", "curve.png", "report.html")


@pytest.fixture
def small(settings: BenchSettings) -> BenchSettings:
    return settings.model_copy(update={"seeds": [0], "ratios": [0.1]})


def check(_: BenchSettings) -> dict[str, str]:
    return {"teacher": "fingerprint", "rows": "digest"}


def test_a_grid_from_nothing(small: BenchSettings, run: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    shown = io.StringIO()
    bench(small, run, check, Console(file=shown, width=100))
    assert run.cells == ["none-0-0", "random-0.1-0", "entropy-0.1-0", "all-1-0"]
    assert all((small.output / name).stat().st_size for name in FILES)
    assert "4 of 4 runs" in (small.output / "report.html").read_text()
    assert "full KD" in capsys.readouterr().out
    assert "all-1-0          accuracy  94.0" in shown.getvalue()


def test_without_labels_there_is_no_run_without_a_teacher(small: BenchSettings, run: FakeRun) -> None:
    bench(small.model_copy(update={"use_labels": False}), run, check, Console(file=io.StringIO()))
    assert run.cells == ["random-0.1-0", "entropy-0.1-0", "all-1-0"]
    page = (small.output / "report.html").read_text()
    assert "3 of 3 runs" in page and "With full KD 94.0" in page


def test_nothing_is_run_when_the_check_refuses(small: BenchSettings, run: FakeRun) -> None:
    def refuse(_: BenchSettings) -> dict[str, str]:
        raise ConfigError("teacher: its labels do not fit")

    with pytest.raises(ConfigError, match="labels"):
        bench(small, run, refuse)
    assert run.cells == []
    assert not small.output.exists()


def test_two_grids_do_not_share_a_folder(small: BenchSettings, run: FakeRun) -> None:
    with alone(small.output), pytest.raises(UserError, match="another process works in"):
        bench(small, run, check, Console(file=io.StringIO()))
    assert run.cells == []


def test_an_interrupted_grid_has_a_report_and_goes_on(small: BenchSettings, run: FakeRun) -> None:
    def interrupted(settings: DistillSettings, watch: Watch) -> RunResult:
        if settings.strategy == "entropy":
            raise KeyboardInterrupt
        return run(settings, watch)

    console = Console(file=io.StringIO())
    with pytest.raises(KeyboardInterrupt):
        bench(small, interrupted, check, console)
    assert "2 of 4 runs, the grid is not complete" in (small.output / "report.html").read_text()
    assert "Random" in (small.output / "table.md").read_text()
    bench(small, run, check, console)
    assert run.cells == ["none-0-0", "random-0.1-0", "entropy-0.1-0", "all-1-0"]
    assert "4 of 4 runs" in (small.output / "report.html").read_text()


def test_the_time_left_is_judged_by_cells_of_the_nearest_ratios(settings: BenchSettings) -> None:
    finished = [("", made_up("random", 0.1, 0, seconds=10.0)), ("", made_up("entropy", 0.1, 0, seconds=20.0))]
    finished.append(("", made_up("all", 1, 0, seconds=105.0)))
    wide = settings.model_copy(update={"ratios": [0.1, 0.55], "seeds": [1]})
    cells = {cell.name: cell for cell in plan(wide)}
    waiting = [cells["entropy-0.1-1"], cells["entropy-0.55-1"], cells["all-1-1"]]
    assert estimates(waiting, finished) == pytest.approx([15, 60, 105])
    assert estimates(waiting, []) == [0, 0, 0]


def test_the_time_left_is_judged_by_cells_of_the_same_group(settings: BenchSettings) -> None:
    cell = replace(plan(settings)[1], group="mrpc")
    finished = [("sst5", made_up("random", 0.1, 0, seconds=10.0))]
    assert estimates([cell], finished) == [10]
    assert estimates([cell], [*finished, ("mrpc", made_up("random", 0.1, 0, seconds=90.0))]) == [90]
