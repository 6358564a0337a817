"""A suite as tables: one as the paper prints it, and for each data set one with its account."""

from rich.table import Table

from student_trainer.experiments.suites.suite import Row
from student_trainer.experiments.suites.summary import (
    ALPHA,
    TEST,
    Comparison,
    Entry,
    Panel,
    cheapest_ratio,
    over_data,
)
from student_trainer.experiments.table import (
    ASKED,
    TIME,
    Column,
    filled,
    gflops,
    in_markdown,
    in_terminal,
    percent,
    score,
    spread,
)

FORMULAS = {
    "full": "full",
    "eq10": "eq. 10",
    "backward_on_all": "backward on all",
    "two_pass_on_all": "two passes on all",
    "two_pass": "two passes",
    "random": "random",
}
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
        *TIME,
    ]
    return filled(columns, panel.entries, panel)


def markdown(panels: list[Panel]) -> str:
    parts = [in_markdown(*overview(panels))]
    parts += [f"## {panel.data}\n\n{in_markdown(*details(panel))}" for panel in panels if panel.entries]
    return "\n\n".join([*parts, " ".join(legend(panels))]) + "\n"


def terminal(panels: list[Panel]) -> Table:
    titles, rows = overview(panels)
    baselines = panels[0].suite.baselines
    return in_terminal(titles, rows, (row[0] in baselines for row in rows))


def findings(panels: list[Panel]) -> list[str]:
    """What the figures say in words, as far as they are there."""
    return [sentence for panel in panels for sentence in [*_best(panel), *_cheapest(panel)]]


def legend(panels: list[Panel]) -> list[str]:
    """How the columns are to be read, a sentence or two each."""
    said = [
        "Scores: ×100 on the validation set, mean ± sample deviation (runs).",
        "asked: questions paid for without a cache; distinct: with one; charged: paid for in this suite, "
        "whose runs share their answers and so depend on the order.",
        "GFLOPs: per instance seen, by the formula that the run follows (as run) and by each of the others; "
        "of several teachers, of those that were asked.",
        "wall: the training loop; waiting: the part of it spent waiting for a teacher.",
    ]
    if panels[0].suite.baselines:
        said.insert(
            1,
            f"over best baseline: points above the best of {', '.join(panels[0].suite.baselines)}, seed by "
            f"seed. p: {TEST}, not corrected for the number of rows. *: better, p < {ALPHA:.2g}.",
        )
    if any(panel.data in row.published for panel in panels for row in panel.suite.rows):
        said.insert(1, f"{PAPER}: as it is published, of the paper's models and data.")
    if any(panel.kept(entry) is not None for panel in panels for entry in panel.entries):
        said.append("gain kept: share of what full KD gains over no KD; blank where that is noise.")
    if any(entry.runs[0].usd.selected is not None for panel in panels for entry in panel.entries):
        said.append("$: list price of a run in one month.")
    if any(entry.stopped for panel in panels for entry in panel.entries):
        said.append("†: a run was stopped by its budget.")
    return said


def _scores(panel: Panel) -> list[Column]:
    title = f"{panel.data}, {panel.metric}" if panel.metric else panel.data
    return [
        Column(title, lambda row, _: _ours(row, panel)),
        Column(PAPER, lambda row, _: _plain(row.published.get(panel.data))),
    ]


def _computed(formula: str, title: str) -> Column:
    return Column(f"GFLOPs, {title}", lambda entry, _: gflops(entry, formula))


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
    """Which row that is no baseline does best, against the best one that is."""
    tried: list[tuple[Entry, Comparison]] = []
    for entry in panel.entries:
        if comparison := panel.against_baseline(entry):
            tried.append((entry, comparison))
    if not tried:
        return []
    best, comparison = max(tried, key=lambda pair: pair[0].score.mean)
    test = "no test" if comparison.p is None else f"p = {comparison.p:.2g}"
    return [
        f"{panel.data}: {best.row.name} does best with {spread(best.score)}; "
        f"{spread(comparison.ahead, signed=True)} over {comparison.baseline}, the best baseline ({test})."
    ]


def _cheapest(panel: Panel) -> list[str]:
    """Of a figure over ratios: where each line first keeps nearly all of full KD's score."""
    if panel.suite.figure.x != "ratio":
        return []
    lines = dict.fromkeys(entry.row.line for entry in panel.entries if "ratio" in entry.row.settings)
    full = panel.find(panel.suite.full_kd)
    found = {
        line: reached
        for line in lines
        if not (full and line == full.row.line) and (reached := cheapest_ratio(panel, line, ENOUGH))
    }
    if not found:
        return []
    where = ", ".join(
        f"{line} {'at no ratio tried' if ratio is None else f'r = {ratio:.4g}'}"
        for line, (ratio, _) in found.items()
    )
    enough = next(iter(found.values()))[1]
    return [f"{panel.data}: {ENOUGH:.0%} of full KD's score ({enough:.1f}) is first reached by {where}."]
