"""`student-trainer bench --suite NAME`: what is missing of the suite is run, and reported after every cell.

Writes results.jsonl, table.md, figure.svg, figure.png and report.html into the output folder.
"""

import shutil
from dataclasses import replace
from functools import partial

from rich.console import Console

from student_trainer.alone import alone
from student_trainer.config import DistillSettings, SuiteSettings
from student_trainer.experiments.progress import Display
from student_trainer.experiments.results import SharedResults
from student_trainer.experiments.suites import series, table
from student_trainer.experiments.suites.forecast import forecast
from student_trainer.experiments.suites.plan import Check, plan, recipes
from student_trainer.experiments.suites.report import publish
from student_trainer.experiments.suites.suite import Figure, load
from student_trainer.experiments.sweep import GENERAL, Run, sweep
from student_trainer.loop import Watch
from student_trainer.result import RunResult
from student_trainer.tariffs import refuse_one_name, tariffs_of
from student_trainer.teachers import refuse_shared_key


def bench_suite(settings: SuiteSettings, run: Run, check: Check, console: Console | None = None) -> None:
    """Runs what is missing of the suite, reports, and prints the table.

    Args:
        settings: the suite, and what stands for its names; run again with the same, or with more data sets
            or seeds, it goes on.
        run: one training run.
        check: as `run.check`: refuses what would stop a run later, before anything is spent.
        console: where progress is shown; stderr by default. The table goes to stdout.

    Raises:
        ConfigError: no such suite, or names and settings that do not fit it; another process is at the
            folder.
    """
    console = console or Console(stderr=True)
    planned = plan(settings, load(settings.suite))
    refuse_shared_key(url for cell in planned.cells for url in cell.settings.teacher)
    if settings.account:
        refuse_one_name(tariff for cell in planned.cells for tariff in tariffs_of(cell.settings))
    for sentence in planned.left_out:
        console.print(sentence, highlight=False)
    path = settings.results or settings.output / "results.jsonl"
    # A name alone does not tell what is finished; where nothing is, a dry run needs no teacher that answers.
    meet = path.exists() or not settings.dry_run
    recipe_of = recipes(planned.cells, check if meet else partial(check, meet=False))
    results = SharedResults(path, recipe_of.get, partial(series.enough, planned.suite.figure))
    if settings.dry_run:
        Console().print(forecast(planned, results))
        if any(cell.settings.price_book for cell in planned.cells):
            console.print("Each price has a month and its free units to itself: they do not add up.")
        return
    with alone(settings.output), Display(planned.cells, results, console) as display:
        noted = _with_series(run, planned.suite.figure)
        for _ in sweep(planned.cells, noted, results, display, settings.keep_models):
            publish(planned, results, recipe_of, settings.output)
        shutil.rmtree(settings.output / GENERAL, ignore_errors=True)
    found = publish(planned, results, recipe_of, settings.output)
    Console().print(table.terminal(found))
    for sentence in table.findings(found):
        Console().print(sentence, highlight=False, soft_wrap=True)


def _with_series(run: Run, figure: Figure) -> Run:
    """The same, with what the figure draws of the run's steps in its result."""

    def noted(settings: DistillSettings, watch: Watch) -> RunResult:
        result = run(settings, watch)
        return replace(result, series=series.of_run(settings, result.steps, figure))

    return noted
