"""A suite as tables: one as the paper prints it, and for each data set one with its account."""

from typing import Any

from rich.table import Table

from student_trainer.experiments.suites.suite import Row, Suite
from student_trainer.experiments.suites.summary import (
    ALPHA,
    TEST,
    Comparison,
    Entry,
    Panel,
    over_data,
)
from student_trainer.experiments.summary import distinct
from student_trainer.experiments.table import (
    ASKED,
    COMMON_STAGE,
    FORMULAS,
    TIME,
    Column,
    filled,
    gflops,
    in_markdown,
    in_terminal,
    percent,
    score,
    spread,
    teachers,
)

PAPER = "the paper"
ENOUGH = 0.99


def overview(panels: list[Panel]) -> tuple[list[str], list[list[str]]]:
    """Titles, and a row of texts for each row of the suite: ours and the paper's score of each data set."""
    columns = [
        Column("row", lambda row, _: row.name),
        *(column for panel in panels for column in _scores(panel)),
        Column("mean", lambda row, _: _plain(over_data(panels, row)[0])),
        Column(PAPER, lambda row, _: _plain(over_data(panels, row)[1])),
    ]
    shown = [row for row in panels[0].suite.rows if _is_shown(row, panels)]
    return filled(columns, shown, None)


def details(panel: Panel) -> tuple[list[str], list[list[str]]]:
    """Titles, and a row of texts for each entry of a data set."""
    columns = [
        Column("row", lambda entry, _: entry.row.name),
        Column(panel.metric, lambda entry, _: score(entry) + _star(panel.against_baseline(entry))),
        Column(PAPER, lambda entry, _: _plain(entry.row.published.get(panel.data))),
        Column("over best baseline", lambda entry, _: _ahead(panel.against_baseline(entry))),
        Column("p", lambda entry, _: _p(panel.against_baseline(entry))),
        Column("gain kept", lambda entry, _: percent(panel.kept(entry))),
        *ASKED,
        *(_computed(formula, title) for formula, title in FORMULAS.items()),
        Column(f"GFLOPs, {PAPER}", lambda entry, _: _computed_there(entry.row)),
        *TIME,
    ]
    return filled(columns, panel.entries, panel)


def markdown(panels: list[Panel]) -> str:
    parts = [in_markdown(*overview(panels)), "\n".join(f"- {sentence}" for sentence in findings(panels))]
    parts += [f"## {panel.data}\n\n{in_markdown(*details(panel))}" for panel in panels if panel.entries]
    return "\n\n".join(filter(None, [*parts, " ".join(legend(panels))])) + "\n"


def terminal(panels: list[Panel]) -> Table:
    titles, rows = overview(panels)
    dim = baselines(panels[0].suite)
    return in_terminal(titles, rows, (row[0] in dim for row in rows))


def baselines(suite: Suite) -> list[str]:
    """Names of the rows that are there for comparison."""
    return [row.name for row in suite.rows if suite.is_baseline(row)]


def findings(panels: list[Panel]) -> list[str]:
    """What the figures say in words, as far as they are there."""
    return [
        sentence for panel in panels for sentence in [*_teachers(panel), *_best(panel), *_cheapest(panel)]
    ]


def _teachers(panel: Panel) -> list[str]:
    """How good each is itself, as far as it was asked."""
    named = [
        pair
        for entry in panel.entries
        for run in entry.runs
        if run.teachers  # none of runs from before they were told apart
        for pair in zip(panel.suite.teachers_of(entry.row), run.teachers, strict=True)
    ]
    return [f"{panel.data}: the {said}" for said in teachers(named, panel.metric)]


def legend(panels: list[Panel]) -> list[str]:
    """How the columns are to be read, a sentence or two each."""
    said = [
        "Scores: ×100 on the validation set, mean ± sample deviation (runs).",
        "asked: questions paid for without a cache; distinct: with one; charged: paid for in this suite, "
        "whose runs share their answers and so depend on the order"
        f"{_checks(panels)}.",
        "GFLOPs: per instance seen, by the formula that the run follows (as run) and by each of the others; "
        "of several teachers, of those that were asked.",
        "wall: the training loop; waiting: the part of it spent waiting for a teacher.",
    ]
    if panels[0].suite.baselines:
        said.insert(
            1,
            f"over best baseline: points above the best of {', '.join(panels[0].suite.baselines)}"
            f"{' at the same x' * _in_lines(panels[0])}, seed by seed. p: {TEST}, not corrected "
            f"for the number of rows. *: better, p < {ALPHA:.2g}.",
        )
    if any(panel.data in row.published for panel in panels for row in panel.suite.rows):
        said.insert(1, f"{PAPER}: as it is published, of the paper's models and data.")
    if any(panel.kept(entry) is not None for panel in panels for entry in panel.entries):
        said.append("gain kept: share of what full KD gains over no KD; blank where that is noise.")
    if any(panel.full for panel in panels):
        said.append(
            f"of full KD's: the share of what {panels[0].suite.full_kd} pays for without a cache (asked) and "
            "with one (distinct), which leaves less to be saved."
        )
    if any(entry.runs[0].usd.selected is not None for panel in panels for entry in panel.entries):
        said.append("$: list price of a run in one month.")
    if any(len(run.teachers) > 1 for panel in panels for entry in panel.entries for run in entry.runs):
        said.append("of each: of several teachers, the smallest first, each at its own price.")
    if any(run.stages for panel in panels for entry in panel.entries for run in entry.runs):
        said.append(COMMON_STAGE)
    if any(entry.stopped for panel in panels for entry in panel.entries):
        said.append("†: a run was stopped by its budget.")
    return said


def _checks(panels: list[Panel]) -> str:
    count = sum(run.questions.checked for panel in panels for entry in panel.entries for run in entry.runs)
    return f"; beside these, {count:,} questions to check the teachers" if count else ""


def _scores(panel: Panel) -> list[Column]:
    title = f"{panel.data}, {panel.metric}" if panel.metric else panel.data
    return [
        Column(title, lambda row, _: _ours(row, panel)),
        Column(PAPER, lambda row, _: _plain(row.published.get(panel.data))),
        Column("gain kept", lambda row, _: _kept(row, panel)),
    ]


def _kept(row: Row, panel: Panel) -> str:
    entry = panel.find(row.name)
    return percent(panel.kept(entry)) if entry else ""


def _computed(formula: str, title: str) -> Column:
    return Column(f"GFLOPs, {title}", lambda entry, _: gflops(entry, formula))


def _computed_there(row: Row) -> str:
    return "" if row.published_gflops is None else f"{row.published_gflops:.3g}"


def _is_shown(row: Row, panels: list[Panel]) -> bool:
    return any(panel.find(row.name) or panel.data in row.published for panel in panels)


def _ours(row: Row, panel: Panel) -> str:
    entry = panel.find(row.name)
    return "" if entry is None else spread(entry.score) + _star(panel.against_baseline(entry))


def _star(comparison: Comparison | None) -> str:
    return "*" if comparison and comparison.significant else ""


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _ahead(comparison: Comparison | None) -> str:
    return f"{spread(comparison.ahead, signed=True)} ({comparison.baseline})" if comparison else ""


def _p(comparison: Comparison | None) -> str:
    return "" if comparison is None or comparison.p is None else f"{comparison.p:.2g}"


def _best(panel: Panel) -> list[str]:
    """At each place, which row to be judged does best, or comes nearest, against the best baseline there."""
    tried: dict[Any, list[tuple[Entry, Comparison]]] = {}
    for entry in panel.entries:
        comparison = panel.against_baseline(entry)
        if comparison and entry not in (panel.none, panel.full):
            tried.setdefault(panel.suite.place_of(entry.row), []).append((entry, comparison))
    return [_won(panel, *max(pairs, key=lambda pair: pair[0].score.mean)) for pairs in tried.values()]


def _won(panel: Panel, best: Entry, comparison: Comparison) -> str:
    test = "no test" if comparison.p is None else f"p = {comparison.p:.2g}"
    which = f"{comparison.baseline}{'' if _in_lines(panel) else ', the best baseline'}"
    level = abs(comparison.ahead.mean) < 0.05  # shown as 0.0
    verdict = "does as well" if level else "does best" if comparison.ahead.mean > 0 else "comes nearest"
    return (
        f"{panel.data}: {best.row.name} {verdict} with {spread(best.score)}; "
        f"{spread(comparison.ahead, signed=True)} over {which} ({test})."
    )


def _in_lines(panel: Panel) -> bool:
    """Whether rows are compared with those at their own x."""
    return any(panel.suite.place_of(row) is not None for row in panel.suite.rows)


def _cheapest(panel: Panel) -> list[str]:
    """Of a figure over ratios: for how few questions each line keeps nearly all of full KD's score."""
    enough = panel.enough(ENOUGH)
    if panel.suite.figure.x != "ratio" or enough is None:
        return []
    judged = [entry for entry in panel.entries if entry not in (panel.none, panel.full)]
    lines = dict.fromkeys(entry.row.line for entry in judged)
    found = ", ".join(_reached(panel, line, enough) for line in lines)
    without = "; no KD keeps it as well" if panel.none and panel.none.score.mean >= enough else ""
    said = f"{panel.data}: {ENOUGH:.0%} of full KD's score ({enough:.1f}) is kept by {found}{without}."
    return [said] if lines else []


def _reached(panel: Panel, line: str, enough: float) -> str:
    """The smallest share of full KD's questions, all kept answers counted once."""
    entry = panel.cheapest(line, enough)
    if entry is None or panel.full is None:
        return f"{line} at no r tried"
    share = distinct(entry) / max(1.0, distinct(panel.full))
    return f"{line} at r = {entry.row.settings['ratio']:.4g} ({percent(share)} of its distinct questions)"
