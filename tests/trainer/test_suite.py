"""`student-trainer bench --suite` with two real teachers: forecast, run, killed, gone on with, reported."""

import json
import re
import signal
from pathlib import Path

import pytest
from tiny_task import rows, save_bert, write_task
from trainers import Trainer

SUITE = """
title: All that a suite can say
paper: Table 0
data: [rte, mrpc]
seeds: [0, 1]
settings: {strategy: all, ratio: 1}
rows:
  - {name: no KD, settings: {teacher: []}}
  - {name: small, settings: {teacher: [small]}, published: {rte: 12.3}}
  - {name: hard, settings: {teacher: [small, large], adoption: hard}}
  - {name: dynamic, settings: {teacher: [small], supervision: dynamic}}
baselines: [no KD, small]
figure: {kind: steps, y: [kl_weight]}
"""


@pytest.fixture
def command(task: Path, student: Path, teacher: Path, tmp_path: Path) -> list[object]:
    """Teachers of two sizes, in folders that are named after the data set."""
    (tmp_path / "suite.yaml").write_text(SUITE)
    (tmp_path / "rte-small").symlink_to(teacher)
    save_bert(tmp_path / "rte-large", seed=9, layers=4, hidden=48)
    teachers = "small=local:{data}-small,large=local:{data}-large"
    recipe = ("--learning-rate", "2e-3", "--batch-size", 16, "--epochs", 0.5, "--max-length", 32)
    names = ("--data-sets", f"rte={task}", "--teachers", teachers, "--student", student)
    flags = ("--check-rows", 6, "--checkpoint-steps", 2, "--output", "out")
    return ["bench", "--suite", "suite.yaml", *names, *recipe, *flags]


def test_a_suite_is_forecast_killed_and_goes_on(command: list[object], tmp_path: Path) -> None:
    forecast = Trainer(tmp_path, *command, "--dry-run")
    assert forecast.wait() == 0, forecast.log
    assert "left out: mrpc" in forecast.log
    assert "rte/hard/1 6 96 96" in forecast.log
    assert not (tmp_path / "out").exists()

    first = Trainer(tmp_path, *command)
    assert first.wait_for_steps(4 * 6 + 4)  # in the middle of the fifth cell, one with hidden states
    assert first.kill() == -signal.SIGKILL
    before = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert len(before) == 4
    again = Trainer(tmp_path, *command)
    assert again.wait() == 0, again.log

    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert lines[:4] == before
    cells = {line["cell"]: line for line in map(json.loads, lines)}
    rows = ("dynamic", "no-KD", "small", "hard")  # hidden states first: their answers serve the others
    assert list(cells) == [f"rte/{row}/{seed}" for seed in (0, 1) for row in rows]
    asked = {name: cell["questions"]["asked"] for name, cell in cells.items()}
    assert [asked[f"rte/{row}/1"] for row in rows] == [96, 0, 96, 96]
    charged = [cells[f"rte/{row}/0"]["questions"]["charged"] for row in rows]
    assert charged[2] == 0  # the small teacher, of whom dynamic has asked all this with hidden states
    checked = {name: cell["questions"]["checked"] for name, cell in cells.items()}
    assert {name for name, count in checked.items() if count} == {"rte/dynamic/0", "rte/hard/0"}
    for seed in (0, 1):
        weights = cells[f"rte/dynamic/{seed}"]["series"]["kl_weight"]
        assert len(weights) == 6 and all(0 <= weight <= 0.5 for weight in weights)
    assert cells["rte/small/0"]["series"] == {"kl_weight": []}  # looked for, and not there
    assert len(cells["rte/hard/0"]["recipe"]["teacher"].split(",")) == 2

    page = (tmp_path / "out" / "report.html").read_text()
    own_scores = re.findall(r"rte: the teacher (\S+) itself has \S+ [\d.]+ on 6 validation rows", page)
    assert own_scores == ["small", "large"]
    assert "8 of 8 runs" in page and "12.3" in page and "λ_KL" in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)  # nothing is loaded from elsewhere
    assert not list(tmp_path.glob("out/cells/*/*/*/model"))


@pytest.mark.parametrize(
    "figure", ["{kind: steps, y: [teacher_entropy, centre_distance, distance_then]}", "{kind: map}"]
)
def test_what_was_selected_is_looked_at(figure: str, command: list[object], tmp_path: Path) -> None:
    suite = SUITE.replace("{kind: steps, y: [kl_weight]}", figure)
    (tmp_path / "suite.yaml").write_text(suite.replace("{strategy: all, ratio: 1}", "{ratio: 0.25}"))
    run = Trainer(tmp_path, *command, "--rows", "small", "--seeds", 0, "--snapshots", 2)
    assert run.wait() == 0, run.log
    line = json.loads((tmp_path / "out" / "results.jsonl").read_text())
    series = line["series"]
    if "map" in figure:
        assert {len(values) for values in series.values()} == {192}
        assert sum(series["map_selected"]) == line["questions"]["asked"] == 24  # half an epoch: none twice
        assert set(series["map_class"]) == {0, 1, 2}
    else:
        assert series.keys() == {"teacher_entropy", "centre_distance", "distance_then"}
        assert series["distance_then"] != series["centre_distance"]
        assert all(0 <= value <= 1.0987 for value in series["teacher_entropy"])
        assert all(value > 0 for name in ("centre_distance", "distance_then") for value in series[name])
        assert {len(values) for values in series.values()} == {6}
    assert "<svg" in (tmp_path / "out" / "report.html").read_text()


def test_a_run_is_never_another_teacher_s(command: list[object], tmp_path: Path) -> None:
    """The same command, and another teacher where the first one was."""
    few = (*command, "--rows", "small", "--seeds", 0)
    assert Trainer(tmp_path, *few).wait() == 0
    (tmp_path / "rte-small").unlink()
    (tmp_path / "rte-small").symlink_to(save_bert(tmp_path / "retrained", seed=5, layers=2))
    again = Trainer(tmp_path, *few)
    assert again.wait() == 2, again.log
    assert re.search(r"the run in out/ ?cells/ ?rte/ ?small/ ?0 began with", again.log)
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 1


def test_a_task_without_labels(command: list[object], tmp_path: Path) -> None:
    """Every question is a label bought: what has no teacher cannot learn, and is left out, by name."""
    bare = [{"text": row["text"]} for row in rows(32, "bare")]
    write_task(tmp_path / "bare", bare, rows(30, "validation"))
    data = ("--data-sets", f"rte={tmp_path / 'bare'}", "--seeds", 0, "--rows", "no KD,small,hard")
    refused = Trainer(tmp_path, *command, *data)
    assert refused.wait() == 2, refused.log
    assert "distil from a teacher (of a bench, --no-use-labels" in refused.log
    dry = Trainer(tmp_path, *command, *data, "--dry-run", "--output", "dry")
    assert dry.wait() == 2, dry.log  # it is refused as the run is
    free = Trainer(tmp_path, *command, *data, "--no-use-labels")
    assert free.wait() == 0, free.log
    assert "nothing to learn from, and left out: no KD." in free.log
    lines = map(json.loads, (tmp_path / "out" / "results.jsonl").read_text().splitlines())
    assert [line["cell"] for line in lines] == ["rte/small/0", "rte/hard/0"]
    assert "left out: no KD" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--suite", "table3"), "suite: no 'table3'; choose one of appendix-c, combined"),
        (("--rows", "harder"), "rows: ['harder'] are not in the suite; it has ['no KD', 'small'"),
        (("--data-sets", "mine=nowhere"), "data: 'nowhere'"),
        (("--teachers", "small=local:nowhere,large=local:rte-large"), "nowhere"),
        (("--student", "no/such-student"), "rte/dynamic/0: student: 'no/such-student'"),
        (("--layer-map", "9:1"), "layer_map: '9:1'"),
    ],
)
def test_what_cannot_be_run_is_refused_before_the_first_cell(
    flags: tuple[str, str], says: str, command: list[object], tmp_path: Path
) -> None:
    trainer = Trainer(tmp_path, *command, *flags)
    assert trainer.wait() in (1, 2), trainer.log
    assert says in trainer.log
    assert not (tmp_path / "out").exists()
