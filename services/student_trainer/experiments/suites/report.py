"""A suite as one page that needs nothing else, and its table in Markdown: written anew after every cell."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from student_trainer.experiments.report import inline, page
from student_trainer.experiments.results import Recipe, Results
from student_trainer.experiments.suites import plots, table
from student_trainer.experiments.suites.plan import Plan
from student_trainer.experiments.suites.suite import Suite
from student_trainer.experiments.suites.summary import Panel, panels


def publish(plan: Plan, results: Results, recipes: Mapping[str, Recipe], folder: Path) -> list[Panel]:
    """Writes table.md, figure.svg, figure.png and report.html; gives what they show."""
    found = panels(plan, results)
    suite = plan.suite
    heading = f"# {suite.title}\n\n{about(suite)}\n\n"
    (folder / "table.md").write_text(heading + table.markdown(found))
    picture = plots.draw(found, folder)
    text = page(
        "suite.html",
        title=suite.title,
        paper=suite.paper,
        note=suite.note,
        left_out=plan.left_out,
        day=date.today(),
        finished=sum(len(entry.runs) for panel in found for entry in panel.entries),
        planned=len(plan.cells),
        findings=table.findings(found),
        picture=inline(picture) if picture else "",
        caption=suite.figure.caption,
        overview=table.overview(found),
        details=[(panel.data, *table.details(panel)) for panel in found if panel.entries],
        baselines=table.baselines(suite),
        legend=table.legend(found),
        recipe=common(list(recipes.values())),
    )
    (folder / "report.html").write_text(text)
    return found


def about(suite: Suite) -> str:
    """Where the paper has it, if it does, and what a reader must know to compare."""
    return f"The paper: {suite.paper}. {suite.note}" if suite.paper else suite.note


def common(recipes: list[Recipe]) -> dict[str, Any]:
    """The settings that all runs share; those that rows or data sets have of their own are in the tables."""
    first, *others = recipes
    return {
        name: value
        for name, value in first.items()
        if value is not None and all(other.get(name) == value for other in others)
    }
