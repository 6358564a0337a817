"""The grid as a table: Markdown for a file, HTML cells for the report, a narrow one for the terminal."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any, Literal

from rich.table import Table

from student_trainer.experiments.summary import FULL_PASS, NAMES, Grid, Runs, Spread, bills
from student_trainer.progress import teacher_score
from student_trainer.result import Part, RunResult, Stage


@dataclass(frozen=True)
class Column:
    """A title, what stands under it for a line of a grid (or of what else is compared), and whether the
    terminal has room for it."""

    title: str
    text: Callable[[Any, Any], str]
    narrow: bool = True


# What a run may compute, as tables name it.
FORMULAS = {
    "full": "full",
    "eq10": "eq. 10",
    "backward_on_all": "backward on all",
    "two_pass_on_all": "two passes on all",
    "two_pass": "two passes",
    "random": "random",
    "in_rounds": "in rounds",
    "general": "general stage",
}

# Of any runs: what they asked, paid, computed and took.
ASKED = [
    Column("asked", lambda line, _: _count(line, _asked), narrow=False),
    Column("asked, of full KD's", lambda line, all_of: _share(line, all_of, _asked), narrow=False),
    Column("distinct", lambda line, _: _count(line, _distinct)),
    Column("distinct, of full KD's", lambda line, all_of: _share(line, all_of, _distinct), narrow=False),
    Column("charged", lambda line, _: _count(line, lambda run: run.questions.charged)),
    Column("distinct, of each teacher", lambda line, _: _of_each(line, lambda part: part.distinct), False),
    Column("of the general stage: asked", lambda line, _: _of_stage(line, "general", _stage_asked), False),
    Column("charged there", lambda line, _: _of_stage(line, "general", lambda s: s.questions.charged), False),
    Column("units there", lambda line, _: _of_stage(line, "general", lambda s: s.units), narrow=False),
    Column("$ there", lambda line, _: _bill(line, _general_usd), narrow=False),
    Column(
        "of the stage behind it: asked", lambda line, _: _of_stage(line, "predictions", _stage_asked), False
    ),
    Column("of full KD's there", lambda line, all_of: _share(line, all_of, _asked_behind), narrow=False),
    Column("$ no cache", lambda line, _: _bill(line, lambda run: run.usd.selected), narrow=False),
    Column("$ cached", lambda line, _: _bill(line, lambda run: run.usd.selected_cached)),
    Column("$ cached, of each", lambda line, _: _of_each(line, lambda part: part.usd_cached, usd), False),
    Column("GFLOPs, as run", lambda line, _: _as_run(line), narrow=False),
]
TIME = [
    Column("wall", lambda line, _: duration(line.mean(lambda run: run.seconds) or 0)),
    Column("waiting", lambda line, _: percent(_waiting(line)), narrow=False),
]


def columns(metric: str) -> list[Column]:
    return [
        Column("strategy", lambda line, _: line.name),
        Column("r", lambda line, _: f"{line.ratio:.4g}" if line.ratio else ""),
        Column(metric, lambda line, _: score(line)),
        Column("over Random", lambda line, grid: spread(grid.over_random(line), signed=True)),
        Column("gain kept", lambda line, grid: percent(grid.kept(line))),
        *ASKED,
        Column("GFLOPs, eq. 10", lambda line, _: gflops(line, "eq10"), narrow=False),
        *TIME,
    ]


def cells(grid: Grid, narrow: bool = False) -> tuple[list[str], list[list[str]]]:
    """Titles, and a row of texts for each line; a column with nothing in it is left out."""
    chosen = [column for column in columns(grid.metric) if column.narrow or not narrow]
    return filled(chosen, grid.lines, grid)


def filled(columns: list[Column], lines: Sequence[Any], whole: Any) -> tuple[list[str], list[list[str]]]:
    """Titles, and a row of texts for each line of the whole; a column with nothing in it is left out."""
    texts = [[column.text(line, whole) for line in lines] for column in columns]
    said = [(column.title, text) for column, text in zip(columns, texts, strict=True) if any(text)]
    return [title for title, _ in said], [list(row) for row in zip(*(text for _, text in said), strict=True)]


def markdown(grid: Grid) -> str:
    return f"{in_markdown(*cells(grid))}\n\n{' '.join(legend(grid))}\n"


def in_markdown(titles: list[str], rows: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(titles) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [titles, rule, *rows])


def terminal(grid: Grid) -> Table:
    """Fits 80 columns."""
    titles, rows = cells(grid, narrow=True)
    return in_terminal(titles, rows, (line.strategy in NAMES for line in grid.lines))


def in_terminal(titles: list[str], rows: list[list[str]], dim: Iterable[bool]) -> Table:
    """Titles are broken at their spaces; rows that are there for comparison are dim."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for position, title in enumerate(titles):
        side: Literal["left", "right"] = "right" if position else "left"
        table.add_column(title.replace(" ", "\n"), justify=side, vertical="bottom", no_wrap=True)
    for row, faint in zip(rows, dim, strict=True):
        table.add_row(*row, style="dim" if faint else "")
    return table


COMMON_STAGE = "A general stage that runs have in common is in the wall time of the one that learnt it."


def legend(grid: Grid) -> list[str]:
    """How the columns are to be read, a sentence or two each."""
    said = [
        f"{grid.metric}: ×100 on the validation set, mean ± sample deviation (runs).",
        "over Random: points above Random at the same r, seed by seed.",
        "gain kept: share of what full KD gains over no KD; blank where that is less than a point, or than "
        "its deviation.",
        "Queries of a run: asked = paid for without a cache, distinct = paid for with one, each also as a "
        "share of full KD's; charged = paid for in this grid, whose runs share their answers and so depend "
        "on the order.",
        "GFLOPs: per instance seen, by the formula that the run follows (named) and by the paper's eq. 10.",
        "wall: the training loop; waiting: the part of it spent waiting for the teacher.",
    ]
    if bill := bills(grid).get(FULL_PASS):
        plain, cached = map(usd, bill)
        said.insert(4, f"$: list price of a run in one month; a full pass costs {plain}, cached {cached}.")
    if any(run.stages for line in grid.lines for run in line.runs):
        said.append(COMMON_STAGE)
    if any(line.stopped for line in grid.lines):
        said.append("†: a run was stopped by its budget.")
    return said


def teachers(named: Iterable[tuple[str, Part]], metric: str) -> list[str]:
    """How good each teacher is itself, by the most validation rows that a run's check asked it about."""
    checked = sorted((pair for pair in named if pair[1].check_rows), key=lambda pair: pair[1].check_rows)
    best = {part.fingerprint: (name, part) for name, part in checked}
    return [f"{teacher_score(name, part, metric)}." for name, part in best.values()]


def score(line: Runs) -> str:
    """Mean and deviation, how many runs, and whether a budget stopped one."""
    return f"{spread(line.score)} ({len(line.runs)}){'†' * line.stopped}"


def spread(value: Spread | None, signed: bool = False) -> str:
    if value is None:
        return ""
    mean = f"{round(value.mean, 1) + 0.0:{'+' if signed else ''}.1f}"  # + 0.0: a difference is never "-0.0"
    return mean if value.deviation is None else f"{mean} ± {value.deviation:.1f}"


def usd(value: float) -> str:
    return f"${value:,.2f}"


def duration(seconds: float) -> str:
    """83 -> 1:23; 3,723 -> 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _count(line: Runs, figure: Callable[[RunResult], int]) -> str:
    return f"{line.mean(figure):,.0f}"


def _asked(run: RunResult) -> int:
    return run.questions.asked


def _distinct(run: RunResult) -> int:
    return run.questions.distinct


def _share(line: Runs, whole: Any, figure: Callable[[RunResult], int]) -> str:
    """Of what full KD asks; blank of a run that asks nothing, and without full KD."""
    ours, all_of_it = line.mean(figure), whole.full and whole.full.mean(figure)
    return percent(ours / all_of_it) if ours and all_of_it else ""


def _of_each(
    line: Runs, figure: Callable[[Part], float | None], shown: Callable[[float], str] = "{:,.0f}".format
) -> str:
    """Of several teachers, the smallest first, a mean over the runs."""
    if any(len(run.teachers) < 2 for run in line.runs):
        return ""
    columns = zip(*(map(figure, run.teachers) for run in line.runs), strict=True)
    known = [[value for value in column if value is not None] for column in columns]
    return " + ".join(shown(mean(column)) for column in known if column)


def _of_stage(line: Runs, name: str, figure: Callable[[Stage], int]) -> str:
    staged = all(run.stages for run in line.runs)
    return _count(line, lambda run: figure(run.stages[name])) if staged else ""


def _stage_asked(stage: Stage) -> int:
    return stage.questions.asked


def _general_usd(run: RunResult) -> float | None:
    return run.stages["general"].usd if run.stages else None


def _asked_behind(run: RunResult) -> int:
    return run.stages["predictions"].questions.asked if run.stages else 0


def _bill(line: Runs, figure: Callable[[RunResult], float | None]) -> str:
    mean = line.mean(figure)
    return "" if mean is None else usd(mean)


def _as_run(line: Runs) -> str:
    schemes = list(dict.fromkeys(run.scheme for run in line.runs))
    mean = line.mean(lambda run: run.flops.get(run.scheme))
    return "" if mean is None else f"{mean:.3g} ({', '.join(FORMULAS[name] for name in schemes)})"


def gflops(line: Runs, formula: str) -> str:
    mean = line.mean(lambda run: run.flops.get(formula))
    return "" if mean is None else f"{mean:.3g}"


def _waiting(line: Runs) -> float | None:
    seconds = sum(run.seconds for run in line.runs)
    return sum(run.waited for run in line.runs) / seconds if seconds else None


def percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"
