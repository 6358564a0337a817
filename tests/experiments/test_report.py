"""The page stands alone, escapes what it is given, and its pictures are the same bytes each time."""

import re
import xml.etree.ElementTree as ET
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_up import made_up

from student_trainer.experiments import plots
from student_trainer.experiments.report import About, findings, render
from student_trainer.experiments.summary import Grid
from student_trainer.result import Money, Part, RunResult

NASTY = "<script>alert(1)</script>\" onload='x'"
VOID = {"meta", "link", "img", "br", "hr", "input"}


def grid(usd: Money | None = None) -> Grid:
    cells = [("none", 0), ("random", 0.1), ("lc", 0.1), ("random", 0.3), ("lc", 0.3), ("all", 1)]
    return Grid.of(
        [made_up(*cell, seed, usd=usd or Money()) for seed in (0, 1) for cell in cells],
    )


def page(of: Grid, folder: Path, data: str = "data") -> str:
    recipe = {"student": data, "learning_rate": 2e-5, "max_rows": None, "price_book": ["book"]}
    return render(of, plots.draw(of, folder), About(data, recipe, 14, date(2026, 1, 2)))


class Strict(HTMLParser):
    """Every tag is closed in order; keeps what was open, every attribute, and ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_loads_nothing(tmp_path: Path) -> None:
    text = page(grid(Money(100, 50, 10, 4)), tmp_path)
    parsed = Strict(text)
    assert parsed.tags.count("svg") == 2
    assert not {"script", "link", "img", "iframe", "object"} & set(parsed.tags)
    loads = [value for name, value in parsed.attributes if name.split(":")[-1] in ("src", "href")]
    assert all(value and value.startswith("#") for value in loads)
    assert not re.search(r"@import|url\((?!#)", text)


def test_ids_are_unique_though_two_pictures_share_the_page(tmp_path: Path) -> None:
    parsed = Strict(page(grid(Money(100, 50, 10, 4)), tmp_path))
    ids = [value for name, value in parsed.attributes if name == "id"]
    assert len(ids) == len(set(ids)) > 0
    used = {value for name, value in parsed.attributes if name == "xlink:href"}
    assert used <= {f"#{value}" for value in ids}


def test_names_are_escaped(tmp_path: Path) -> None:
    text = page(grid(), tmp_path, NASTY)
    parsed = Strict(text)
    assert "script" not in parsed.tags
    assert text.count("&lt;script&gt;") == 3  # title, heading, recipe
    assert not any(name.startswith("on") for name, _ in parsed.attributes)


def test_pictures_take_the_page_s_colours(tmp_path: Path) -> None:
    text = page(grid(), tmp_path)
    picture = text[text.index("<svg") : text.index("</svg>")]
    assert "var(--ink)" in picture and "var(--paper)" in picture
    assert not any(colour in picture for colour in (plots.INK, plots.MUTED, plots.PAPER))


def test_it_says_what_is_missing_and_leaves_out_what_is_not_set(tmp_path: Path) -> None:
    text = page(grid(), tmp_path)
    assert "12 of 14 runs, the grid is not complete" in text
    assert "2 January 2026" in text
    assert "max_rows" not in text and "four ways" not in text


def test_findings_name_the_best_and_what_it_cost() -> None:
    assert findings(grid())[:2] == [
        "Without a teacher the student reaches 90.5 ± 0.7, with full KD 94.5 ± 0.7 (accuracy × 100).",
        "At r = 0.1, lc does best: 92.0 ± 0.7 for 160 distinct queries, 16% of full KD's, "
        "+0.4 ± 0.0 over Random.",
    ]


def test_findings_begin_with_the_teachers_own_score_by_its_longest_check() -> None:
    def part(rows: int, accuracy: float) -> Part:
        scores = {"accuracy": accuracy} if rows else {}
        return Part("big", "f", "book/feature", 9, 9, 9, 9, None, None, rows, scores)

    runs = [
        made_up("all", 1, seed, teachers=[one]) for seed, one in enumerate([part(64, 0.9), part(512, 0.931)])
    ]
    unchecked = made_up("all", 1, 2, teachers=[part(0, 0)])
    said = findings(Grid.of([*runs, unchecked]))
    assert said[0] == (
        "The teacher big itself has accuracy 93.1 on 512 validation rows that it was asked about first."
    )
    assert not any("itself" in sentence for sentence in findings(Grid.of([unchecked])))


def test_findings_say_so_when_random_is_best() -> None:
    runs = [made_up("none", 0, 0), made_up("random", 0.1, 0), made_up("all", 1, 0)]
    losing = made_up("entropy", 0.1, 0, scores={"accuracy": 0.5})
    assert findings(Grid.of([*runs, losing]))[1].endswith("no strategy beats it.")


def test_a_picture_has_the_same_bytes_when_it_is_drawn_again(tmp_path: Path) -> None:
    of = grid(Money(100, 50, 10, 4))
    before = {name: path.read_bytes() for name, path in plots.draw(of, tmp_path).items()}
    after = {name: path.read_bytes() for name, path in plots.draw(of, tmp_path).items()}
    assert before == after
    assert before.keys() == {"curve", "bill"}
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_curve_says_every_strategy_and_both_levels(tmp_path: Path) -> None:
    svg = ET.parse(plots.draw(grid(), tmp_path)["curve"])
    said = {"".join(text.itertext()).strip() for text in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {"Random", "lc", "r = 0.1", "r = 0.3", "accuracy × 100"} <= said
    assert any("full KD" in text for text in said) and any("no KD" in text for text in said)


@pytest.mark.parametrize(
    "runs",
    [
        [made_up("none", 0, 0)],
        [made_up("none", 0, 0), made_up("random", 0.1, 0)],
        [made_up("all", 1, 0, usd=Money(0, 0, 0, 0))],
        [made_up("random", 0.1, 0, usd=Money(0, 0, 0, 0))],
    ],
)
def test_a_grid_that_was_cut_short_has_a_report_too(runs: list[RunResult], tmp_path: Path) -> None:
    assert "svg" in Strict(page(Grid.of(runs), tmp_path)).tags
