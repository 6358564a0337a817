"""A whole suite with made-up runs: run, reported, gone on with, forecast."""

import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import FakeRun, made_up
from rich.console import Console
from test_report import Strict
from test_suites import check, settings

from student_trainer.config import DistillSettings, SuiteSettings
from student_trainer.experiments.suites import plots, selected, series, table
from student_trainer.experiments.suites.command import bench_suite
from student_trainer.experiments.suites.plan import plan
from student_trainer.experiments.suites.series import READERS, enough
from student_trainer.experiments.suites.suite import Figure, Suite, load
from student_trainer.experiments.suites.summary import Entry, Panel, paired_p
from student_trainer.loop import Watch
from student_trainer.result import Part, RunResult
from student_trainer.teachers import TeacherUrlError
from teacher_api.prices import PriceBookError

FILES = ("results.jsonl", "table.md", "figure.svg", "figure.png", "report.html")
ROWS = ("no-KD", "ensemble", "hard")
POINTS = {"single": 0.90, "ensemble": 0.91, "hard": 0.94, "soft": 0.92, "soft-batch": 0.89}


class Scored(FakeRun):
    """A run whose score depends on its adoption, on its teacher and a little on its seed."""

    def __call__(self, settings: DistillSettings, watch: Watch) -> RunResult:
        result = super().__call__(settings, watch)
        self.cells[-1] = "/".join(settings.output.parts[-3:])
        score = POINTS[settings.adoption] + 0.001 * settings.seed
        if settings.adoption == "hard":
            score += 0.002 * (settings.seed % 2)  # its lead over the ensemble has a spread
        return replace(result, scores=dict.fromkeys(result.scores, score - 0.1 * (not settings.teacher)))


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture takes a second, and is drawn after every cell: only tests that look at it have one."""
    if "drawn" not in request.node.name:
        monkeypatch.setattr("student_trainer.experiments.suites.plots.draw", lambda *_: None)


@pytest.fixture
def small(tmp_path: Path) -> SuiteSettings:
    return settings(
        tmp_path, "table1", data_sets={"rte": "a", "trec6": "b"}, rows=["no KD", "ensemble", "hard"]
    )


def go(of: SuiteSettings, run: FakeRun) -> str:
    shown = io.StringIO()
    bench_suite(of, run, check, Console(file=shown, width=100))
    return shown.getvalue()


def rows(of: SuiteSettings) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (of.output / "results.jsonl").read_text().splitlines()]


def test_a_suite_from_nothing(small: SuiteSettings, capsys: pytest.CaptureFixture[str]) -> None:
    run = Scored()
    said = go(small, run)
    order = [f"{data}/{row}/{seed}" for seed in range(3) for data in ("rte", "trec6") for row in ROWS]
    assert run.cells == order == [row["cell"] for row in rows(small)]
    assert "left out: imdb, cola" in said
    printed = capsys.readouterr().out
    assert "94.2 ± 0.2*" in printed and "66.9" in printed
    assert "rte: hard does best with 94.2 ± 0.2; +3.1 ± 0.1 over ensemble, the best baseline" in printed
    assert not list(small.output.glob("cells/*/*/*/model"))
    page = (small.output / "report.html").read_text()
    for part in (
        *("The paper: Table 1", "18 of 18 runs", "left out: imdb, cola", "94.2 ± 0.2*"),
        *("ttest_rel", "+3.1 ± 0.1 (ensemble)", "rte: hard does best with 94.2 ± 0.2", "66.9"),
        *("GFLOPs, eq. 10", "GFLOPs, two passes", "learning_rate"),
    ):
        assert part in page, part
    markdown = (small.output / "table.md").read_text()
    assert "| hard | 94.2 ± 0.2* | 66.9 | 94.2 ± 0.2* | 94.2 |" in markdown
    assert "| small teacher |  | 67.8 |  |  |" in markdown
    assert "## trec6" in markdown
    assert "\n- rte: hard does best with 94.2 ± 0.2; " in markdown


def test_a_report_is_drawn_and_stands_alone(small: SuiteSettings) -> None:
    go(small.model_copy(update={"data_sets": {"rte": "a"}, "seeds": [0]}), Scored())
    assert all((small.output / name).stat().st_size for name in FILES)
    page = Strict((small.output / "report.html").read_text())
    assert "svg" in page.tags and not {"script", "link", "img"} & set(page.tags)


def test_it_goes_on_where_it_was_and_with_more_data(small: SuiteSettings) -> None:
    first, second = Scored(), Scored()
    go(small.model_copy(update={"data_sets": {"rte": "a"}}), first)
    go(small, second)
    assert len(first.cells) == len(second.cells) == 9
    assert all(cell.startswith("trec6/") for cell in second.cells)
    assert "18 of 18" in (small.output / "report.html").read_text()
    go(small.model_copy(update={"data_sets": {"trec6": "b"}}), third := Scored())
    assert third.cells == []
    assert "9 of 9" in (small.output / "report.html").read_text()


def test_kept_results_are_gone_on_with_from_elsewhere(small: SuiteSettings, tmp_path: Path) -> None:
    go(small.model_copy(update={"seeds": [0, 1]}), Scored())
    kept = tmp_path / "kept.jsonl"
    (small.output / "results.jsonl").rename(kept)
    elsewhere = {"output": tmp_path / "elsewhere", "results": kept, "answers": tmp_path / "other.sqlite"}
    go(small.model_copy(update=elsewhere), run := Scored())
    assert run.cells == [
        f"{data}/{row}/2" for data in ("rte", "trec6") for row in ("no-KD", "ensemble", "hard")
    ]
    assert len(kept.read_text().splitlines()) == 18
    assert not (tmp_path / "elsewhere" / "results.jsonl").exists()


def test_another_recipe_or_another_teacher_is_another_cell(small: SuiteSettings) -> None:
    go(small, Scored())
    changed = SuiteSettings(**small.model_dump(exclude_unset=True) | {"learning_rate": 0.5})
    go(changed, faster := Scored())
    bench_suite(
        small, again := Scored(), lambda of: check(of) | {"teacher": "retrained"}, Console(file=io.StringIO())
    )
    go(small, back := Scored())
    assert (len(faster.cells), len(again.cells), len(back.cells)) == (18, 18, 0)
    assert len(rows(small)) == 54


def test_suites_share_a_file_and_what_they_have_in_common(small: SuiteSettings, tmp_path: Path) -> None:
    """Table 1's KD small is Table 5's KL only, and both have a row without a teacher."""
    go(small.model_copy(update={"rows": ["no KD", "KD small"], "data_sets": {"rte": "a"}}), Scored())
    kept = small.output / "results.jsonl"
    other = {"suite": "table5", "output": tmp_path / "table5", "results": kept, "rows": []}
    table5 = SuiteSettings(**small.model_dump(exclude_unset=True) | {"data_sets": {"rte": "a"}} | other)
    go(table5, run := Scored())
    assert run.cells == [f"rte/{row}/{seed}" for seed in range(3) for row in ("static", "dynamic")]


def test_a_figure_takes_only_results_that_have_what_it_draws() -> None:
    plain, drawn = made_up("all", 1, 0), replace(made_up("all", 1, 0), series={"kl_weight": [0.5]})
    steps, dots = Figure(kind="steps", y=["kl_weight"]), Figure(kind="dots")
    assert [enough(steps, plain), enough(steps, drawn), enough(dots, plain)] == [False, True, True]


def test_an_interrupted_suite_has_a_report(small: SuiteSettings) -> None:
    def interrupted(of: DistillSettings, watch: Watch) -> RunResult:
        if of.adoption == "hard":
            raise KeyboardInterrupt
        return Scored()(of, watch)

    with pytest.raises(KeyboardInterrupt):
        bench_suite(small, interrupted, check, Console(file=io.StringIO()))
    assert "2 of 18 runs, the grid is not complete" in (small.output / "report.html").read_text()


def test_a_dry_run_asks_and_trains_nothing(small: SuiteSettings, tmp_path: Path, capsys) -> None:
    """Two data sets of 8 texts, batches of 4, a price of one dollar a thousand after 5,000: see forecast."""
    folder = tmp_path / "data"
    folder.mkdir()
    texts = [json.dumps({"text": f"text {i % 6}", "label": "ab"[i % 2]}) for i in range(8)]
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("\n".join(texts))
    given = {"dry_run": True, "seeds": [0], "batch_size": 4, "epochs": 1.5, "data_sets": {"rte": str(folder)}}
    run = Scored()
    go(SuiteSettings(**small.model_dump(exclude_unset=True) | given), run)
    assert run.cells == [] and not small.output.exists()
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line}
    # 3 steps of 4: 12 instances; the ensemble asks two teachers, and both are checked on 8 rows
    assert lines["rte/no-KD/0"] == ["3", "0", "0"]
    assert lines["rte/ensemble/0"] == ["3", "40", "28"]
    assert lines["rte/hard/0"] == ["3", "12", "12"]
    assert lines["together,"][2:] == ["9", "52", "28"]


@pytest.fixture
def dry(small: SuiteSettings, tmp_path: Path, capsys) -> Callable[..., list[list[str]]]:
    """The lines of a dry run: a dollar a question, ten training and two validation texts, one epoch."""
    for split, count in (("train", 10), ("validation", 2)):
        lines = [json.dumps({"text": f"{split} {number}", "label": number % 2}) for number in range(count)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    tiers = "unit_characters = 1000\ntiers = [{ usd_per_1000 = 1000 }]"
    book = tmp_path / "book.toml"
    book.write_text(f'as_of = 2026-01-01\nsource = "made up"\n[features.each]\n{tiers}\n')

    def dry(suite: str, rows: list[str], **more: Any) -> list[list[str]]:
        given = {"suite": suite, "rows": rows, "data_sets": {"rte": str(tmp_path)}, "dry_run": True}
        given |= {"price_book": str(book), "price_feature": "each", "seeds": [0], "epochs": 1} | more
        go(SuiteSettings(**small.model_dump(exclude_unset=True) | given), Scored())
        return [line.split() for line in capsys.readouterr().out.splitlines()[1:]]

    return dry


def test_a_dry_run_prices_the_checks_and_each_kind_of_answers(dry) -> None:
    """Hidden states first: what has them serves who wants predictions alone."""
    lines = dry("table5", ["KL only", "static"])
    assert [line[-5:] for line in lines] == [
        ["1", "12", "12", "$12.00", "$12.00"],  # static, which checks the teacher
        ["1", "10", "10", "$10.00", "$10.00"],
        ["2", "22", "12", "$22.00", "$12.00"],
    ]
    assert lines[0][0] == "rte/static/0"


def test_a_dry_run_does_not_count_on_the_states_of_a_part(dry) -> None:
    """Of a batch's share it is not known which rows they are: others may be asked about, up to all."""
    lines = dry("combined", ["KD small", "selection + supervision"], ratio=0.3)
    assert lines[-3][0] == "rte/selection-supervision/0"
    assert lines[-1][-3:] == [str(3 + 10 + 2), "$15.00", "$15.00"]


@pytest.mark.parametrize(
    ("suite", "row", "more", "dollars"),
    [
        # Each seed may give other halves to the teachers: both are asked about all in the end.
        ("table1", "hard", {"seeds": [0, 1, 2]}, 2 * 10 + 2 * 2),
        ("table1", "ensemble", {"seeds": [0, 1, 2]}, 2 * 10 + 2 * 2),
        # What has no states is asked again by a stage that wants them, and the other way round it is not.
        ("table4", "full KD", {"seeds": [0, 1], "general_epochs": 1}, 10 + 2),
        ("table4", "full KD", {"seeds": [0, 1], "general_epochs": 1, "general_ratio": 0.5}, 2 * 10 + 2),
        ("table4", "full KD", {"general_epochs": 1, "supervision": "static", "pooling": "mean"}, 2 * 10 + 2),
        # States of all texts serve who wants none. Of a part it is not known which part that is.
        ("table5", "static,KL only", {"seeds": [0, 1]}, 10 + 2),
        ("table5", "static,KL only", {"seeds": [0, 1], "budget_queries": 100}, 2 * 10 + 2),
        ("table5", "static,KL only", {"epochs": 0.5, "batch_size": 4}, 2 * 8 + 2),
        ("combined", "KD small,adoption + supervision", {"seeds": [0, 1]}, 3 * 10 + 2 * 2),
    ],
)
def test_a_dry_run_promises_no_less_than_may_be_paid(
    suite: str, row: str, more: dict[str, Any], dollars: int, dry
) -> None:
    together = dry(suite, row.split(","), **more)[-1]
    assert together[-1] == f"${dollars}.00"


def test_two_books_of_one_name_do_not_share_an_account(small: SuiteSettings, tmp_path: Path) -> None:
    """Each row alone has one book; the account's tiers would be counted over both."""
    for folder, dollars in (("cheap", 1), ("dear", 100)):
        (tmp_path / folder).mkdir()
        tiers = f"unit_characters = 1000\ntiers = [{{ usd_per_1000 = {dollars} }}]"
        text = f'as_of = 2026-01-01\nsource = "made up"\n[features.sentiment]\n{tiers}\n'
        (tmp_path / folder / "prices.toml").write_text(text)
    books = [f"small={tmp_path}/cheap/prices.toml", f"large={tmp_path}/dear/prices.toml"]
    given = {"rows": ["KD small", "KD large"], "price_book": books}
    alone = SuiteSettings(**small.model_dump(exclude_unset=True) | given)
    with pytest.raises(PriceBookError, match="two books that differ have a tariff 'prices/sentiment'"):
        go(alone.model_copy(update={"account": "ours"}), run := Scored())
    assert run.cells == []
    go(alone, run)
    assert len(run.cells) > 0


def test_one_key_is_not_shown_to_the_hosts_of_several_cells(small: SuiteSettings, monkeypatch) -> None:
    """Each of the rows asks one teacher alone."""
    monkeypatch.setenv("STUDENT_TEACHER_API_KEY", "sesame")
    teachers = {"small": "grpc://small:1", "large": "grpc://large:2"}
    given = {"rows": ["KD small", "KD large"], "teachers": teachers}
    with pytest.raises(TeacherUrlError, match="say whose it is: small:1=KEY,large:2=KEY"):
        go(small.model_copy(update=given), run := Scored())
    assert run.cells == []


@pytest.mark.parametrize(("use_labels", "runs"), [(True, 2), (False, 1)])
def test_a_dry_run_counts_rows_that_are_one_run_once(
    small: SuiteSettings, tmp_path: Path, capsys, use_labels: bool, runs: int
) -> None:
    """Without labels there is one way to average."""
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text('{"text": "a", "label": "a"}\n{"text": "b", "label": "b"}')
    rows = ["batch random + replay 0.2", "batch random + replay by row 0.2"]
    given = {"suite": "frontier", "rows": rows, "data_sets": {"rte": str(tmp_path)}, "seeds": [0]}
    given |= {"dry_run": True, "use_labels": use_labels}
    go(SuiteSettings(**small.model_dump(exclude_unset=True) | given), Scored())
    said = capsys.readouterr().out
    assert f"together, {runs} cells" in said
    assert (" above" in said) == (runs == 1)


@pytest.mark.parametrize(("changed", "finished"), [({}, 2), ({"learning_rate": 0.5}, 0)])
def test_a_dry_run_counts_as_finished_what_a_run_would(
    small: SuiteSettings, tmp_path: Path, capsys, changed: dict[str, Any], finished: int
) -> None:
    """Table 5 of results that table 1 kept: KL only is its KD small, unless something else is changed."""
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text('{"text": "a", "label": "a"}\n{"text": "b", "label": "b"}')
    given = {"rows": ["no KD", "KD small"], "data_sets": {"rte": str(folder)}, "seeds": [0]}
    go(small.model_copy(update=given), Scored())
    other = {"suite": "table5", "results": small.output / "results.jsonl", "dry_run": True}
    table5 = SuiteSettings(**small.model_dump(exclude_unset=True) | given | other | {"rows": []} | changed)
    go(table5, run := Scored())
    said = capsys.readouterr().out.splitlines()
    assert run.cells == []
    assert sum("finished" in line for line in said) == finished
    assert any(line.startswith(f"together, {4 - finished} cells") for line in said)


def scored(seed: int, score: float) -> RunResult:
    return made_up("all", 1, seed, scores={"accuracy": score}, series={y: [0.2, 0.3, None] for y in READERS})


def panel(scores: dict[str, list[float]], suite: Suite) -> Panel:
    entries = [
        Entry(
            row,
            tuple(made_up("all", 1, seed, scores={"accuracy": s}) for seed, s in enumerate(scores[row.name])),
        )
        for row in suite.rows
        if row.name in scores
    ]
    return Panel("rte", suite, tuple(entries))


def test_p_as_computed_by_hand() -> None:
    # differences 1, 2, 3: mean 2, deviation 1, t = 2·√3 = 3.4641 with 2 degrees: p = 1 - t/√(t² + 2)
    t = 2 * math.sqrt(3)
    assert paired_p([1.0, 2.0, 3.0]) == pytest.approx(1 - t / math.sqrt(t * t + 2))
    assert paired_p([2.0, 2.0, 2.0]) is None
    assert paired_p([1.0]) is None


def test_only_what_is_better_than_the_best_baseline_has_a_star() -> None:
    suite = load("table1")
    scores = {"KD small": [0.5, 0.6, 0.7], "ensemble": [0.6, 0.7, 0.8]}
    scores |= {"hard": [0.65, 0.751, 0.852], "soft": [0.5, 0.61, 0.72], "soft-batch": [0.61, 0.9, 0.7]}
    found = panel(scores, suite)
    stars = {entry.row.name: found.against_baseline(entry) for entry in found.entries}
    assert stars["KD small"] is None and stars["ensemble"] is None
    assert {c.baseline for c in stars.values() if c} == {"ensemble"}
    significant = {name for name, c in stars.items() if c and c.significant}
    assert significant == {"hard"}
    assert stars["soft"] is not None and stars["soft"].p is not None and stars["soft"].p < 0.05  # worse


def test_the_smallest_ratio_that_keeps_nearly_all() -> None:
    suite = load("figure3")
    scores = {"full KD": [0.9], "random r=0.1": [0.80], "random r=0.3": [0.895], "random r=0.5": [0.9]}
    scores |= {"lc r=0.1": [0.891], "lc r=0.3": [0.88], "margin r=0.5": [0.7]}
    found = panel(scores, suite)
    entries = [replace(entry, runs=asking(entry)) for entry in found.entries]
    reached = (
        "rte: 99% of full KD's score (89.1) is kept by random at r = 0.3 (48 % of its distinct questions), "
        "lc at r = 0.1 (16 % of its distinct questions), margin at no r tried"
    )
    assert table.findings([replace(found, entries=tuple(entries))])[-1] == f"{reached}."
    (silent,) = panel({"lc r=0.05": [0.9]}, suite).entries  # a twentieth of few rows may be none
    silent = replace(silent, runs=(made_up("lc", 0, 0, scores=silent.runs[0].scores),))
    assert table.findings([replace(found, entries=(*entries, silent))])[-1] == f"{reached}."
    untaught = panel({"no KD": [0.9]}, suite).entries
    assert table.findings([replace(found, entries=(*untaught, *entries))])[-1] == (
        f"{reached}; no KD keeps it as well."
    )


def asking(entry: Entry) -> tuple[RunResult, ...]:
    """Runs of a row with the questions of its own ratio: of 2,000 instances 1,000 are different."""
    ratio = entry.row.settings.get("ratio", 0)
    strategy = "all" if ratio == 1 else "random" if ratio else "none"
    return tuple(made_up(strategy, ratio, run.seed, scores=run.scores) for run in entry.runs)


def test_a_line_is_tested_against_random_at_the_same_ratio() -> None:
    """Not against the best Random there is; what asks nothing, or everything, has no Random beside it."""
    scores = {"random r=0.1": [0.6, 0.7, 0.8], "random r=0.5": [0.9, 0.9, 0.9], "full KD": [0.9, 0.9, 0.9]}
    scores |= {"lc r=0.1": [0.65, 0.751, 0.852], "lc r=0.5": [0.8, 0.81, 0.82], "no KD": [0.5, 0.5, 0.5]}
    found = panel(scores, load("figure3"))
    beside = {entry.row.name: found.against_baseline(entry) for entry in found.entries}
    names = {name: comparison.baseline for name, comparison in beside.items() if comparison}
    assert names == {"lc r=0.1": "random r=0.1", "lc r=0.5": "random r=0.5"}
    assert [name for name, comparison in beside.items() if comparison and comparison.significant] == [
        "lc r=0.1"
    ]
    assert table.findings([found])[:2] == [
        "rte: lc r=0.1 does best with 75.1 ± 10.1; +5.1 ± 0.1 over random r=0.1 (p = 0.00013).",
        "rte: lc r=0.5 comes nearest with 81.0 ± 1.0; -9.0 ± 1.0 over random r=0.5 (p = 0.0041).",
    ]
    assert "the best of random at the same x, seed by seed" in " ".join(table.legend([found]))


def test_what_a_cache_leaves_of_the_saving() -> None:
    """At r = .1, 200 of 2,000 questions are asked: 160 different ones of full KD's 1,000."""
    found = panel({"random r=0.1": [0.6], "full KD": [0.9], "no KD": [0.5]}, load("figure3"))
    entries = tuple(replace(entry, runs=asking(entry)) for entry in found.entries)
    titles, lines = table.details(replace(found, entries=entries))
    shares = [titles.index(f"{name}, of full KD's") for name in ("asked", "distinct")]
    assert [[line[place] for place in shares] for line in lines] == [
        ["", ""],
        ["10 %", "16 %"],
        ["100 %"] * 2,
    ]


def test_each_teacher_has_its_part_of_a_row() -> None:
    """Means over two runs; a row of one teacher has nothing to tell apart."""
    suite, row = load("table1"), {row.name: row for row in load("table1").rows}
    small, large = (
        Part(name, name, "book/x", 9, count, 0, 9, 1.0, 0.5) for name, count in (("s", 4), ("l", 7))
    )
    runs = [
        replace(made_up("all", 1, seed), teachers=[replace(small, distinct=4 + seed), large])
        for seed in (0, 1, 2)
    ]
    alone = replace(made_up("all", 1, 0), teachers=[small])
    entries = (Entry(row["KD small"], (alone,)), Entry(row["hard"], tuple(runs)))
    titles, lines = table.details(Panel("rte", suite, entries))
    columns = [titles.index(name) for name in ("distinct, of each teacher", "$ cached, of each")]
    assert [[line[place] for place in columns] for line in lines] == [["", ""], ["5 + 7", "$0.50 + $0.50"]]


def test_the_share_of_the_gain_is_beside_the_score() -> None:
    found = panel({"no KD": [0.5], "random": [0.6], "full KD": [0.7]}, load("table2"))
    titles, lines = table.overview([found])
    kept = {line[0]: line[titles.index("gain kept")] for line in lines}
    assert kept == {"no KD": "0 %", "random": "50 %", "full KD": "100 %"}
    assert table.findings([found]) == []  # the control alone: nothing is judged


def test_the_mean_is_over_all_data_sets_or_none() -> None:
    suite = load("table1")
    rte, other = (panel({"hard": [score]}, suite) for score in (0.6, 0.8))
    titles, lines = table.overview([rte, replace(other, data="cola")])
    hard = dict(zip(titles, next(line for line in lines if line[0] == "hard"), strict=True))
    assert hard["mean"] == "70.0"
    assert hard["the paper"] == "54.8"  # the last of that title: (66.9 + 42.7) / 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        *(("figure2", "accuracy × 100, over no KD"), ("figure3", ">margin<"), ("figure6", "λ_KL")),
        *(("figure7", ">τ<"), ("table5", ">dynamic<"), ("figure4", "distance to the class centre")),
    ],
)
def test_every_kind_of_figure_is_drawn(name: str, said: str, tmp_path: Path) -> None:
    suite = load(name)
    found = panel({row.name: [0.5, 0.6] for row in suite.rows if not row.only_published}, suite)
    empty = replace(found, data="mrpc", entries=())
    plots.draw([found, replace(found, data="sst5"), replace(found, data="trec6"), empty], tmp_path)
    svg = (tmp_path / "figure.svg").read_text()
    assert said in svg
    assert [f">{data}<" in svg for data in ("rte", "sst5", "trec6", "mrpc")] == [True, True, True, False]
    assert (tmp_path / "figure.png").stat().st_size


def test_a_map_of_the_first_run_of_each_row_is_drawn(tmp_path: Path) -> None:
    suite = load("figure5")
    series = {
        "map_x": [0.0, 1, 2],
        "map_y": [0.0, 2, 1],
        "map_class": [0.0, 1, -1],
        "map_selected": [1.0, 0, 1],
    }
    runs = tuple(made_up("margin", 0.1, seed, series=dict(series)) for seed in (0, 1))
    plots.draw([Panel("sst5", suite, tuple(Entry(row, runs) for row in suite.rows))], tmp_path)
    svg = (tmp_path / "figure.svg").read_text()
    assert svg.count("sst5, margin<") == 1 and svg.count("sst5, random<") == 1 and "asked about" in svg


def test_distances_are_to_the_centre_of_the_own_class() -> None:
    vectors = np.array([[0, 0], [4, 0], [9, 9], [9, 11], [5, 5]], np.float32)
    labels = np.array([0, 0, 1, 1, -1])
    # 2, 2 from (2, 0) and 1, 1 from (9, 10): the mean is 1.5
    found = selected.distances_to_centres(vectors, labels)
    assert found[:4] == pytest.approx([4 / 3, 4 / 3, 2 / 3, 2 / 3])
    assert math.isnan(found[4])


def test_gains_without_their_base_are_not_drawn(tmp_path: Path) -> None:
    suite = load("figure2")
    assert plots.draw([panel({"KD layers=2": [0.5, 0.6]}, suite)], tmp_path) is not None
    assert plots.draw([panel({"no KD layers=2": [0.5, 0.6]}, suite)], tmp_path) is not None


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    assert plots.draw([Panel("rte", load("table1"), ())], tmp_path) is None


def test_a_series_is_thinned_to_means_of_equal_parts() -> None:
    points = [(step, float(step)) for step in range(400)]
    thinned = series.thinned([*points, (0, 8.0)], 400)
    assert len(thinned) == 100
    assert thinned[0] == (8 + 1 + 2 + 3) / 4 and thinned[-1] == 397.5
    assert series.thinned([(0, 0.5), (1, math.nan)], 3) == [0.5, None, None]
    assert series.thinned([(1, math.nan)], 3) == []


def test_rows_of_results_hold_their_series(small: SuiteSettings) -> None:
    go(small, Scored())
    assert {json.dumps(row["series"]) for row in rows(small)} == {"{}"}
    assert len(plan(small, load("table1")).cells) == len(rows(small))


def test_a_legend_of_many_long_names_fits(tmp_path: Path) -> None:
    """Sixteen lines as in frontier, a panel of one data set: each named, and no two drawn alike."""
    rows = [row for row in load("frontier").rows if row.settings.get("ratio", 1) in (0.1, 0.2, 1)]
    shown = panel({row.name: [0.5, 0.6] for row in rows}, load("frontier"))
    drawing = plots.figure(plots.pictures(shown))
    drawing.canvas.draw()
    (legend,) = drawing.legends
    assert {text.get_text() for text in legend.get_texts()} >= {row.line for row in rows}
    box, page = legend.get_window_extent(), drawing.bbox
    assert box.x0 >= page.x0 and box.x1 <= page.x1 and box.y1 <= page.y1 and box.y0 > page.height / 2
    drawn = [bars.lines[0] for bars in drawing.axes[0].containers]
    assert (
        len({(line.get_color(), line.get_marker(), line.get_linestyle()) for line in drawn}) == len(drawn) > 8
    )


def test_what_asks_nothing_for_a_while_is_drawn_where_it_does() -> None:
    """Of two runs one has a part without a question: there the mean is the other's."""
    suite = load("figure6")
    runs = tuple(
        made_up("all", 1, seed, series={"kl_weight": v}) for seed, v in enumerate(([0.1, None], [0.3, 0.4]))
    )
    (picture,) = plots.pictures(Panel("sst5", suite, (Entry(suite.rows[0], runs),)))
    (line,) = plots.figure([picture]).axes[0].lines
    assert line.get_ydata().tolist() == pytest.approx([0.2, 0.4])


def test_a_score_that_equals_the_best_baselines_is_not_called_better() -> None:
    suite = load("table2")
    scores = {"random": [0.5, 0.6], "entropy": [0.5, 0.6]}
    assert table.findings([panel(scores, suite)]) == [
        "rte: entropy does as well with 55.0 ± 7.1; +0.0 ± 0.0 over random, the best baseline (no test)."
    ]


def test_the_papers_flops_and_the_checks_are_beside_ours() -> None:
    run = made_up("random", 0.5, 0)
    run = replace(run, questions=replace(run.questions, checked=1064))
    suite = load("table2")
    entry = Entry(next(row for row in suite.rows if row.name == "random"), (run,))
    titles, (row,) = table.details(Panel("sst5", suite, (entry,)))
    assert row[titles.index("GFLOPs, the paper")] == "22.6"
    assert "beside these, 1,064 questions to check the teachers" in " ".join(
        table.legend([Panel("sst5", suite, (entry,))])
    )
