"""The grid as one page that needs nothing else: pictures, table, bill and recipe, for light and dark."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from student_trainer.experiments import table
from student_trainer.experiments.plots import INK, MUTED, PAPER
from student_trainer.experiments.summary import Grid, Line

_PAGE_COLOURS = {INK: "var(--ink)", MUTED: "var(--muted)", PAPER: "var(--paper)"}


@dataclass(frozen=True)
class About:
    """What a report says of its grid beside the results.

    Attributes:
        data: what was learnt from, as its settings name it.
        recipe: the settings that all runs share.
        planned: runs of the whole grid.
        day: of the report.
    """

    data: str
    recipe: Mapping[str, Any]
    planned: int
    day: date


def render(grid: Grid, pictures: Mapping[str, Path], about: About) -> str:
    """The page. Every name in it is escaped; pictures are our own SVG files, put in as they are."""
    titles, texts = table.cells(grid)
    return page(
        "report.html",
        title=f"Distilling with fewer questions: {about.data}",
        day=about.day,
        finished=sum(len(line.runs) for line in grid.lines),
        planned=about.planned,
        findings=findings(grid),
        pictures={name: inline(path) for name, path in pictures.items()},
        titles=titles,
        rows=list(zip(grid.lines, texts, strict=True)),
        legend=table.legend(grid),
        tariff=", ".join([*about.recipe.get("price_book", []), *about.recipe.get("price_feature", [])]),
        recipe={name: value for name, value in about.recipe.items() if value is not None},
    )


def page(template: str, **content: Any) -> str:
    """A template of this package, filled; what is not our own markup is escaped."""
    environment = Environment(
        loader=PackageLoader("student_trainer", "experiments"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(content)


def findings(grid: Grid) -> list[str]:
    """The grid in words: what full KD reaches, and what the best line at each ratio keeps of it."""
    none, full = grid.find("none"), grid.full
    parts = ((part.name, part) for line in grid.lines for run in line.runs for part in run.teachers)
    teachers = [f"The {said}" for said in table.teachers(parts, grid.metric)]
    if full is None:
        return teachers
    without = f"Without a teacher the student reaches {table.spread(none.score)}, with" if none else "With"
    said = [*teachers, f"{without} full KD {table.spread(full.score)} ({grid.metric} × 100)."]
    for ratio in sorted({line.ratio for line in grid.selections}):
        best = max((x for x in grid.selections if x.ratio == ratio), key=lambda line: line.score.mean)
        said.append(_finding(best, full, grid))
    return said


def _finding(best: Line, full: Line, grid: Grid) -> str:
    asked, all_asked = (line.mean(lambda run: run.questions.distinct) or 0 for line in (best, full))
    paid = f"{asked:,.0f} distinct queries" + (f", {asked / all_asked:.0%} of full KD's" if all_asked else "")
    ahead = grid.over_random(best)
    beside = (
        "; no strategy beats it" if ahead is None else f", {table.spread(ahead, signed=True)} over Random"
    )
    return f"At r = {best.ratio:.4g}, {best.name} does best: {table.spread(best.score)} for {paid}{beside}."


def inline(picture: Path) -> Markup:
    """An SVG as a part of a page: no XML head, no fixed size, the page's colours, no group ids to clash."""
    svg = picture.read_text()
    svg = re.sub(r'<g id="[\w.-]+">', "<g>", svg[svg.index("<svg") :])
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    for ours, theirs in _PAGE_COLOURS.items():
        svg = svg.replace(ours, theirs)
    return Markup(svg)
