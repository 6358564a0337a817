"""Every shipped suite file, and the plan that is made of one."""

import re
from pathlib import Path
from typing import Any

import pytest

from student_trainer.config import ConfigError, DistillSettings, SuiteSettings, names_suite, parse
from student_trainer.experiments.results import differences
from student_trainer.experiments.suites.plan import Plan, plan, recipes, student_of
from student_trainer.experiments.suites.suite import Suite, available, data_sets, load

TEACHERS = {name: f"local:{{data}}-{name}" for name in ("small", "large", "narrow", "wide")}
NAMES = [f"figure{number}" for number in range(2, 8)] + [f"table{number}" for number in (1, 2, 4, 5)]

START = "title: x\npaper: y\ndata: []\n"


def settings(folder: Path, suite: str, **given: Any) -> SuiteSettings:
    values: dict[str, Any] = {
        "suite": suite,
        "student": "student",
        "output": folder / "out",
        "teachers": TEACHERS,
        "data_sets": dict.fromkeys(load(suite).data, "folder"),
    }
    return SuiteSettings(**values | given)


def planned(folder: Path, suite: str, **given: Any) -> Plan:
    found = settings(folder, suite, **given)
    return plan(found, load(suite))


def cell_of(planned: Plan, name: str) -> DistillSettings:
    return next(cell.settings for cell in planned.cells if cell.name == name)


def check(settings: DistillSettings, *, meet: bool = True) -> dict[str, str]:
    teacher = ",".join(f"fingerprint of {url}" for url in settings.teacher)
    return {"teacher": teacher, "rows": f"rows of {settings.data}"}


def test_the_suites_that_come_with_the_package() -> None:
    assert {*NAMES, "appendix-c", "combined", "frontier", "frontier-states"} == set(available())


def test_the_three_dynamics_alone_in_pairs_and_all_at_once(tmp_path: Path) -> None:
    """By which of them a row has; the rest has none. Random asks as much as entropy, of the same teacher."""
    found = planned(tmp_path, "combined", data_sets={"trec6": "a"}, seeds=[0], ratio=0.2)
    runs = {cell.name.split("/")[1]: cell.settings for cell in found.cells}

    def dynamics(of: DistillSettings) -> set[str]:
        used = {"selection": of.strategy == "entropy", "adoption": of.adoption == "hard"}
        used["supervision"] = of.supervision == "dynamic"
        return {name for name, is_used in used.items() if is_used}

    for name in ("selection", "adoption", "supervision", "selection-adoption", "selection-supervision"):
        assert dynamics(runs[name]) == set(name.split("-")), name
    assert dynamics(runs["adoption-supervision"]) == {"adoption", "supervision"}
    assert len(dynamics(runs["all-three"])) == 3
    assert not any(dynamics(runs[name]) for name in ("no-KD", "KD-small", "ensemble", "random"))
    assert {run.ratio for run in runs.values()} == {0.2, 1}
    assert {name for name, run in runs.items() if run.ratio == 0.2} == {
        *("random", "selection", "selection-adoption", "selection-supervision", "all-three")
    }
    assert runs["random"].teacher == runs["selection"].teacher == ["local:trec6-small"]
    combined = [row.name for row in found.suite.rows if not found.suite.is_baseline(row)]
    assert combined == [row.name for row in found.suite.rows][-4:]


@pytest.mark.parametrize("name", available())
def test_every_file_makes_runs_on_every_known_data_set(name: str, tmp_path: Path) -> None:
    everywhere = planned(tmp_path, name, data_sets=dict.fromkeys(data_sets(), "folder"))
    suite = everywhere.suite
    rows = [row for row in suite.rows if not row.only_published]
    assert len(everywhere.cells) == len(rows) * len(data_sets()) * len(suite.seeds)
    assert len({cell.name for cell in everywhere.cells}) == len(everywhere.cells)
    assert set(suite.data) <= set(data_sets())
    assert all(set(row.published) <= set(suite.data) for row in suite.rows)
    assert suite.figure.kind != "lines" or suite.figure.x


@pytest.mark.parametrize(
    ("suite", "row", "published"),
    [
        ("table1", "hard", {"rte": 66.9, "imdb": 86.3, "cola": 42.7}),
        ("table2", "margin", {"sst5": 46.6, "imdb": 86.8, "mrpc": 79.4, "mnli-m": 81.4, "mnli-mm": 81.9}),
        ("table4", "random", {"sst5": 51.1, "imdb": 87.0, "mrpc": 83.3, "mnli-m": 80.8, "mnli-mm": 80.5}),
        ("table5", "dynamic", {"sst5": 48.1, "mrpc": 81.5, "rte": 66.4}),
        ("appendix-c", "KD narrow", {"cola": 11.9, "imdb": 83.4}),
    ],
)
def test_what_the_paper_says(suite: str, row: str, published: dict[str, float]) -> None:
    assert next(one.published for one in load(suite).rows if one.name == row) == published


@pytest.mark.parametrize(
    ("suite", "row", "average"),
    [
        *(("table1", "no KD", 63.0), ("table1", "KD large", 63.1), ("table1", "hard", 65.3)),
        *(("table4", "full KD", 78.0), ("table4", "entropy", 77.7), ("table5", "KL only", 64.2)),
    ],
)
def test_columns_average_to_what_the_paper_prints(suite: str, row: str, average: float) -> None:
    scores = next(one.published for one in load(suite).rows if one.name == row).values()
    assert sum(scores) / len(scores) == pytest.approx(average, abs=0.05)


def test_a_row_s_settings_with_its_teachers_of_the_data_set(tmp_path: Path) -> None:
    found = cell_of(planned(tmp_path, "table1", student="s/{data}"), "cola/hard/2")
    assert found.teacher == ["local:cola-small", "local:cola-large"]
    assert (found.adoption, found.strategy, found.ratio, found.seed) == ("hard", "all", 1, 2)
    assert (found.metric, found.student, found.data) == ("matthews", "s/cola", "folder")
    assert found.output == tmp_path / "out" / "cells" / "cola" / "hard" / "2"
    assert found.resume


def test_what_the_command_gives_wins_over_suite_and_data_but_not_over_the_row(tmp_path: Path) -> None:
    given = {"max_length": 16, "ratio": 0.3, "strategy": "lc", "supervision": "static"}
    found = planned(tmp_path, "table2", **given)
    assert cell_of(found, "sst5/margin/0").max_length == 16
    assert cell_of(found, "sst5/margin/0").ratio == 0.3
    assert cell_of(found, "sst5/margin/0").strategy == "margin"
    assert cell_of(found, "sst5/margin/0").supervision == "static"
    assert cell_of(found, "sst5/full-KD/0").ratio == 1
    assert cell_of(found, "sst5/no-KD/0").supervision == "none"
    assert cell_of(planned(tmp_path, "table2"), "sst5/margin/0").max_length == 64


def test_a_preset_is_under_everything(tmp_path: Path) -> None:
    found = planned(tmp_path, "table1", preset="reference")
    assert cell_of(found, "rte/hard/0").adoption == "hard"
    assert cell_of(found, "rte/KD-small/0").adoption == "single"
    assert cell_of(found, "rte/KD-small/0").rounding == "floor"


def test_seed_by_seed_then_data_by_data(tmp_path: Path) -> None:
    found = planned(tmp_path, "table5", seeds=[4, 3], data_sets={"rte": "a", "trec6": "b"}, rows=["static"])
    names = ["rte/static/4", "trec6/static/4", "rte/static/3", "trec6/static/3"]
    assert [cell.name for cell in found.cells] == names
    assert found.left_out == ["Not given, and left out: sst5, mrpc."]
    assert [row.name for row in found.suite.rows] == ["teacher", "static"]


def test_a_line_s_name_stands_for_its_rows(tmp_path: Path) -> None:
    found = planned(tmp_path, "figure3", seeds=[0], rows=["margin", "lc r=0.1"])
    names = [f"sst5/{name}/0" for name in ("margin-r=0.05", "margin-r=0.1", "lc-r=0.1", "margin-r=0.2")]
    assert [cell.name for cell in found.cells][:4] == names


def test_each_teacher_has_its_own_price_by_its_name(tmp_path: Path) -> None:
    prices = {"price_book": "large=dear.toml,small=cheap.toml", "price_feature": ["sentiment"]}
    found = planned(tmp_path, "table1", **prices)
    assert cell_of(found, "rte/hard/0").price_book == ["cheap.toml", "dear.toml"]
    assert cell_of(found, "rte/KD-large/0").price_book == ["dear.toml"]
    assert cell_of(found, "rte/hard/0").price_feature == ["sentiment"]
    assert cell_of(found, "rte/no-KD/0").price_book == []
    with pytest.raises(
        ConfigError, match=r"price_book: large has none; name one for each, as small=…,large=…"
    ):
        planned(tmp_path, "table1", price_book="small=cheap.toml")


def test_each_teacher_has_its_own_map_of_layers_by_its_name(tmp_path: Path) -> None:
    found = planned(tmp_path, "combined", layer_map="large=4:1,8:2;small=2:1,4:2")
    assert [own.layer_map for own in cell_of(found, "cola/all-three/0").by_teacher] == ["2:1,4:2", "4:1,8:2"]
    assert [own.layer_map for own in cell_of(found, "cola/selection-supervision/0").by_teacher] == ["2:1,4:2"]
    assert [
        own.layer_map for own in cell_of(planned(tmp_path, "combined"), "cola/all-three/0").by_teacher
    ] == ["skip", "skip"]
    with pytest.raises(
        ConfigError, match=r"layer_map: large has none; name one for each, as small=…;large=…"
    ):
        planned(tmp_path, "combined", layer_map="small=2:1,4:2")


def test_where_no_label_may_be_used_there_is_no_row_without_a_teacher(tmp_path: Path) -> None:
    found = planned(tmp_path, "table1", data_sets={"rte": "a"}, use_labels=False, seeds=[0])
    assert "rte/no-KD/0" not in {cell.name for cell in found.cells}
    assert len(found.cells) == 6
    assert found.left_out[1:] == ["Without labels there is nothing to learn from, and left out: no KD."]
    with pytest.raises(ConfigError, match=r"rows: without labels \['no KD'\] have nothing to learn from"):
        planned(tmp_path, "table1", rows=["no KD"], use_labels=False)


def test_each_teacher_is_checked_once_for_each_data_set(tmp_path: Path) -> None:
    found = planned(tmp_path, "table1", data_sets={"rte": "a", "cola": "b"})
    checked = [cell.name for cell in found.cells if cell.settings.check_rows]
    assert checked == ["rte/KD-small/0", "rte/KD-large/0", "cola/KD-small/0", "cola/KD-large/0"]


def test_a_recipe_does_not_depend_on_where_things_lie(tmp_path: Path) -> None:
    for place in ("one", "other"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "config.json").write_text("{}")
        (tmp_path / place / "model.safetensors").write_text("weights")
    same = {"teacher": "fingerprint", "rows": "digest"}
    one, other = (
        recipes(
            planned(
                tmp_path / place, "table1", student=str(tmp_path / place), answers=tmp_path / place
            ).cells,
            lambda _: same,
        )
        for place in ("one", "other")
    )
    assert one == other
    assert one["rte/hard/0"]["adoption"] == "hard" and one["rte/hard/1"]["seed"] == 1
    assert not any("/" in str(value) for value in one["rte/hard/0"].values())


def test_a_student_is_what_its_folder_holds(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("weights")
    before = student_of(str(tmp_path))
    (tmp_path / "README.md").write_text("words")
    assert student_of(str(tmp_path)) == before
    (tmp_path / "model.safetensors").write_text("other weights")
    assert student_of(str(tmp_path)) != before
    assert student_of("some/hub-name") == "some/hub-name"


def test_the_check_is_made_once_for_runs_that_differ_in_nothing_that_it_looks_at(tmp_path: Path) -> None:
    asked: list[str] = []

    def counting(of: DistillSettings) -> dict[str, str]:
        asked.append(of.output.parent.name)
        return check(of)

    found = planned(tmp_path, "table1", data_sets={"rte": "a"})
    made = recipes(found.cells, counting)
    assert asked == ["no-KD", "KD-small", "KD-large", "ensemble"]
    assert made.keys() == {cell.name for cell in found.cells}
    assert differences(made["rte/hard/0"], made["rte/soft/0"]) == [
        "adoption: it was 'hard', now 'soft'",
    ]


def test_a_refusal_names_lines_and_how_to_name_a_point(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"'no KD', 'batch random'.*and of a line its points, such as 'batch random 0.01'$"
    ):
        planned(tmp_path, "frontier", rows=["batch random 0.3"])


def test_what_rows_are_tested_against_may_be_chosen(tmp_path: Path) -> None:
    given = {"rows": ["batch random + replay", "batch entropy + replay"], "data_sets": {"trec6": "a"}}
    assert planned(tmp_path, "frontier", **given).suite.baselines == ["batch random"]
    suite = planned(tmp_path, "frontier", **given, baselines=["batch random + replay"]).suite
    entropy, random = (
        next(row for row in suite.rows if row.name == f"batch {name} + replay 0.1")
        for name in ("entropy", "random")
    )
    assert [suite.is_baseline(row) for row in (entropy, random)] == [False, True]
    assert suite.place_of(entropy) == suite.place_of(random) == 0.1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"baselines": ["harder"]}, r"baselines: \['harder'\] are not in the suite; it has \['no KD'"),
        (
            {"teachers": {"small": "local:a"}},
            "teachers: the rows ask large; set teachers, as small=URL,large=URL",
        ),
        ({"rows": ["harder"]}, r"rows: \['harder'\] are not in the suite; it has \['no KD', 'KD small'"),
        (
            {"layer_map": "skip", "price_book": ["a", "b", "c"]},
            r"row KD small: price_book: 3 are named for 1",
        ),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        planned(tmp_path, "table1", **given)


def test_ones_own_data_has_a_name_of_its_own(tmp_path: Path) -> None:
    found = planned(tmp_path, "table1", data_sets={"tickets": "a"})
    assert {cell.settings.data for cell in found.cells} == {"a"}
    assert found.left_out == ["Not given, and left out: rte, imdb, cola."]


def test_a_suite_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"suite: no 'table3'; choose one of appendix-c, .*table5"):
        load("table3")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title: x", "mine.yaml: rows: it is missing"),
        ("- a", "mine.yaml must hold `field: value` lines"),
        (f"{START}rows: [{{name: a, setings: {{}}}}]", "mine.yaml: rows.0.setings: no such setting"),
        (f"{START}rows: [{{name: a}}]\nfigure: {{kind: pie}}", "figure.kind: Input should be 'dots', "),
        (f"{START}rows: [{{name: a}}, {{name: a}}]", "twice"),
        (f"{START}rows: [{{name: 'a, or b', line: c}}]", "['a, or b'] could not be asked for"),
        (f"{START}rows: [{{name: a, line: 'b, c'}}]", "['b, c'] could not be asked for"),
        (f"{START}rows: [{{name: a}}]\nbaselines: [b]", "'b'"),
        ("title: [", "cannot be read"),
        (f"{START}rows: [{{name: 'r={{ratio}}', each: {{lambda: [1]}}}}]", "for each of ['lambda']"),
        (f"{START}rows: [{{name: a}}]\nfigure: {{kind: lines, x: ratio}}", "the rows ['a'] do not set"),
        (f"{START}rows: [{{name: a}}]\nfigure: {{kind: steps}}", "steps needs y"),
    ],
)
def test_a_broken_suite_of_one_s_own_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(said)):
        load(str(tmp_path / "mine.yaml"))


def test_rows_are_made_of_every_combination() -> None:
    row = {"name": "{a}-{b}", "line": "{a}", "settings": {"c": 0}, "each": {"a": [1, 2], "b": ["x", "y"]}}
    rows = Suite.model_validate({"title": "t", "paper": "p", "data": [], "rows": [row]}).rows
    assert [row.name for row in rows] == ["1-x", "1-y", "2-x", "2-y"]
    assert (rows[1].line, rows[1].settings) == ("1", {"c": 0, "a": 1, "b": "y"})


def test_flags_choose_the_suite_and_name_what_it_uses(tmp_path: Path) -> None:
    flags = ["--suite", "table1", "--student", "s", "--output", "o", "--seeds", "3", "--rows", "hard,soft"]
    flags += ["--teachers", "small=grpc://h:1,large=local:t/{data}=x", "--data-sets", "rte=a/b"]
    found = parse(SuiteSettings, flags, "bench")
    assert found.teachers == {"small": "grpc://h:1", "large": "local:t/{data}=x"}
    assert (found.data_sets, found.seeds, found.rows) == ({"rte": "a/b"}, [3], ["hard", "soft"])
    (tmp_path / "c.yaml").write_text("suite: table1")
    assert names_suite(flags) and names_suite(["--suite=table1"])
    assert names_suite(["--config", str(tmp_path / "c.yaml")])
    assert not names_suite(["--student", "suite", "--strategies", "lc"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"data": "folder"}, "data: a suite has several"),
        ({"teacher": "local:a"}, "teacher: the suite's rows name theirs"),
        ({"data_sets": {}}, "data_sets: name one"),
        ({"data_sets": "sst5"}, "NAME=VALUE"),
        ({"seeds": "-1"}, "greater than or equal to 0"),
    ],
)
def test_settings_that_a_suite_cannot_use(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        settings(tmp_path, "table1", **given)
