"""`student-trainer bench`: a grid of runs against one teacher, and what it came to.

Writes results.jsonl, table.md, curve.svg, curve.png, report.html (and bill.svg, bill.png where dollars are
known) into the output folder, anew after every cell: an interrupted grid has a report of what it has.
"""

import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

from rich.console import Console

from student_trainer.alone import alone
from student_trainer.config import BenchSettings
from student_trainer.experiments import grid as plain
from student_trainer.experiments import plots, report, table
from student_trainer.experiments.progress import Display
from student_trainer.experiments.summary import Grid
from student_trainer.experiments.sweep import GENERAL, Run, sweep

Check = Callable[[BenchSettings], dict[str, str]]


def bench(settings: BenchSettings, run: Run, check: Check, console: Console | None = None) -> None:
    """Runs what is missing of the grid, reports, and prints the table.

    Args:
        settings: the grid; run again with the same, or with more strategies, ratios or seeds, it goes on.
        run: one training run.
        check: refuses data, a student or a teacher that cannot be used, before anything is spent, and
            gives the teacher's fingerprint and the rows' digest.
        console: where progress is shown; stderr by default. The table goes to stdout.

    Raises:
        ConfigError: the output folder holds results of another recipe, or another process is at it.
    """
    recipe = plain.recipe_of(settings, check(settings))
    cells = plain.plan(settings)
    about = report.About(settings.data, recipe, len(cells), date.today())
    with alone(settings.output):
        results = plain.open_results(settings, recipe)
        with Display(cells, results, console or Console(stderr=True)) as display:
            for _ in sweep(cells, run, results, display, settings.keep_models):
                publish(Grid.of(results.all()), settings.output, about)
        shutil.rmtree(settings.output / GENERAL, ignore_errors=True)
    grid = Grid.of(results.all())
    publish(grid, settings.output, about)
    Console().print(table.terminal(grid))


def publish(grid: Grid, folder: Path, about: report.About) -> None:
    """Writes the table, the pictures and the page."""
    (folder / "table.md").write_text(table.markdown(grid))
    pictures = plots.draw(grid, folder)
    (folder / "report.html").write_text(report.render(grid, pictures, about))
