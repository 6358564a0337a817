"""The plan of a grid, what a cell is given, and what an interrupted grid does when it goes on."""

import fcntl
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from made_up import FakeRun, Nobody, made_up

from student_trainer.config import BenchSettings, ConfigError, DistillSettings
from student_trainer.experiments.grid import open_results, plan, recipe_of
from student_trainer.experiments.results import Results, differences
from student_trainer.experiments.sweep import Run, sweep
from student_trainer.loop import Watch
from student_trainer.result import RunResult

NAMES = [
    *("none-0-0", "random-0.1-0", "entropy-0.1-0", "random-0.3-0", "entropy-0.3-0", "all-1-0"),
    *("none-0-1", "random-0.1-1", "entropy-0.1-1", "random-0.3-1", "entropy-0.3-1", "all-1-1"),
]


def recipe(_: str) -> dict[str, str]:
    return {"rows": "digest"}


def go(settings: BenchSettings, run: Run, fingerprint: str = "teacher") -> Results:
    results = open_results(settings, recipe_of(settings, {"teacher": fingerprint}))
    for _ in sweep(plan(settings), run, results, Nobody(), settings.keep_models):
        pass
    return results


def cell_settings(name: str, settings: BenchSettings) -> DistillSettings:
    return next(cell.settings for cell in plan(settings) if cell.name == name)


def rows(settings: BenchSettings) -> list[str]:
    return (settings.output / "results.jsonl").read_text().splitlines()


def test_seed_by_seed_cheap_first_with_random_always_there(settings: BenchSettings) -> None:
    assert [cell.name for cell in plan(settings)] == NAMES


def test_what_is_named_twice_runs_once(settings: BenchSettings) -> None:
    twice = settings.model_copy(
        update={"seeds": [0, 1, 0], "ratios": [0.1, 0.3, 0.1], "strategies": ["entropy", "random", "entropy"]}
    )
    assert sorted(cell.name for cell in plan(twice)) == sorted(NAMES)


def test_a_cell_has_its_own_folder_and_the_answers_of_all(settings: BenchSettings) -> None:
    cell = cell_settings("entropy-0.3-1", settings)
    assert type(cell) is DistillSettings
    assert (cell.strategy, cell.ratio, cell.seed) == ("entropy", 0.3, 1)
    assert cell.output == settings.output / "cells" / "entropy-0.3-1"
    assert (cell.answers, cell.teacher, cell.resume) == (settings.answers, ["local:teacher"], True)


def test_the_teacher_is_checked_once(settings: BenchSettings) -> None:
    checked = {cell.name: cell.settings.check_rows for cell in plan(settings)}
    assert {name for name, rows in checked.items() if rows} == {"random-0.1-0"}
    assert checked["random-0.1-0"] == settings.check_rows


def test_no_kd_has_neither_teacher_nor_budget(settings: BenchSettings) -> None:
    cell = cell_settings("none-0-0", settings.model_copy(update={"budget_queries": 5}))
    assert (cell.teacher, cell.budget_queries) == ([], None)


def test_rows_are_results_with_their_cell_and_recipe(settings: BenchSettings, run: FakeRun) -> None:
    go(settings, run)
    read = [json.loads(row) for row in rows(settings)]
    assert [row.pop("cell") for row in read] == NAMES == run.cells
    assert len({json.dumps(row.pop("recipe")) for row in read}) == 1
    assert RunResult.from_dict(read[2]) == made_up("entropy", 0.1, 0)


def test_a_finished_grid_runs_nothing_and_a_wider_one_only_what_is_new(
    settings: BenchSettings, run: FakeRun
) -> None:
    go(settings, run)
    again, wider = FakeRun(), FakeRun()
    go(settings, again)
    go(settings.model_copy(update={"strategies": ["entropy", "lc"]}), wider)
    assert again.cells == []
    assert wider.cells == ["lc-0.1-0", "lc-0.3-0", "lc-0.1-1", "lc-0.3-1"]


@pytest.mark.parametrize("keep", [False, True])
def test_weights_go_and_the_rest_stays(settings: BenchSettings, run: FakeRun, keep: bool) -> None:
    go(settings.model_copy(update={"keep_models": keep}), run)
    folder = settings.output / "cells" / "random-0.1-0"
    assert folder.is_dir()
    assert [path.exists() for path in (folder / "model", folder / "checkpoint-00000010")] == [keep, keep]


def test_weights_that_a_kill_left_behind_go_when_the_grid_goes_on(
    settings: BenchSettings, run: FakeRun
) -> None:
    go(settings.model_copy(update={"keep_models": True}), run)
    go(settings, run)
    assert not list(settings.output.glob("cells/*/model"))


@pytest.mark.parametrize("cell", range(len(NAMES)))
def test_interrupted_at_any_cell_and_resumed_gives_the_same_rows(
    settings: BenchSettings, run: FakeRun, tmp_path: Path, cell: int
) -> None:
    def interrupted(its_settings: DistillSettings, watch: Watch) -> RunResult:
        if its_settings.output.name == NAMES[cell]:
            raise KeyboardInterrupt
        return FakeRun()(its_settings, watch)

    unbroken = settings.model_copy(update={"output": tmp_path / "unbroken"})
    go(unbroken, FakeRun())
    with pytest.raises(KeyboardInterrupt):
        go(settings, interrupted)
    assert len(rows(settings) if cell else []) == cell
    go(settings, run)
    assert run.cells == NAMES[cell:]
    assert rows(settings) == rows(unbroken)


def test_a_torn_last_line_is_dropped_wherever_it_was_torn(settings: BenchSettings, run: FakeRun) -> None:
    path = settings.output / "results.jsonl"
    go(settings, run)
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for end in [*range(last, len(whole), 17), len(whole) - 1]:
        path.write_bytes(whole[:end])
        results = open_results(settings, recipe_of(settings, {"teacher": "teacher"}))
        assert len(results) == len(NAMES) - 1
        assert path.read_bytes() == whole[:last]
    resumed = FakeRun()
    go(settings, resumed)
    assert resumed.cells == [NAMES[-1]]
    assert path.read_bytes() == whole


def test_a_row_is_whole_when_it_is_forced_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, forced = tmp_path / "results.jsonl", []
    monkeypatch.setattr("os.fsync", lambda handle: forced.append(os.fstat(handle).st_size))
    Results(path, recipe).add("all-1-0", made_up("all", 1, 0))
    assert forced == [path.stat().st_size]
    assert Results(path, recipe).all() == [made_up("all", 1, 0)]


def test_what_another_process_is_writing_is_not_cut_off(tmp_path: Path) -> None:
    """A reader waits until the writer's line is whole."""
    path = tmp_path / "results.jsonl"
    Results(path, recipe).add("all-1-0", made_up("all", 1, 0))
    line = path.read_bytes()
    with path.open("ab") as file, ThreadPoolExecutor(1) as reader:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(line[:50])
        file.flush()
        found = reader.submit(Results, path, recipe)
        with pytest.raises(TimeoutError):
            found.result(timeout=0.2)
        file.write(line[50:])
        file.flush()
        fcntl.flock(file, fcntl.LOCK_UN)
        assert len(found.result(timeout=10)) == 1
    assert path.read_bytes() == line * 2


def run_noted(settings: BenchSettings, forever: str = "") -> None:
    """A process's grid: each cell that it runs has a line in `ran`; one may last."""

    def run(cell: DistillSettings, watch: Watch) -> RunResult:
        with (settings.output / "ran").open("a") as ran:
            ran.write(cell.output.name + "\n")
        time.sleep(3600 if cell.output.name == forever else 0.02)
        return FakeRun()(cell, watch)

    settings.output.mkdir(parents=True, exist_ok=True)
    go(settings, run)


def test_processes_that_share_results_share_the_work(settings: BenchSettings) -> None:
    ours = [get_context("spawn").Process(target=run_noted, args=(settings,)) for _ in range(3)]
    for process in ours:
        process.start()
    for process in ours:
        process.join(timeout=60)
    assert [process.exitcode for process in ours] == [0, 0, 0]
    assert sorted((settings.output / "ran").read_text().split()) == sorted(NAMES)
    assert len(rows(settings)) == len(NAMES)


def test_a_cell_whose_process_dies_is_run_by_who_waits_for_it(settings: BenchSettings, run: FakeRun) -> None:
    lasting = get_context("spawn").Process(target=run_noted, args=(settings, NAMES[0]))
    lasting.start()
    try:
        while not (settings.output / "ran").exists():
            assert lasting.is_alive()
            time.sleep(0.05)
        with ThreadPoolExecutor(1) as other:
            done = other.submit(go, settings, run)
            while len(run.cells) < len(NAMES) - 1:
                time.sleep(0.01)
            assert not done.done()
            lasting.kill()
            assert len(done.result(timeout=60)) == len(NAMES)
    finally:
        lasting.kill()
        lasting.join()
    assert run.cells == [*NAMES[1:], NAMES[0]]


def test_a_line_that_is_no_result_is_named(settings: BenchSettings, run: FakeRun) -> None:
    go(settings, run)
    path = settings.output / "results.jsonl"
    path.write_text("{}\n" + path.read_text())
    with pytest.raises(ConfigError, match=r"results\.jsonl, line 1 is not a result"):
        go(settings, run)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"learning_rate": 0.5}, "learning_rate: it was 2e-05, now 0.5"),
        ({"student": "other"}, "student: it was 'student', now 'other'"),
        ({"budget_queries": 9}, "budget_queries: it was None, now 9"),
    ],
)
def test_another_recipe_in_the_same_folder_is_refused_before_a_cell(
    settings: BenchSettings, run: FakeRun, change: dict[str, object], said: str
) -> None:
    go(settings, run)
    other = FakeRun()
    for _ in range(2):  # the refusal itself changes nothing
        with pytest.raises(ConfigError, match="another recipe") as refusal:
            go(settings.model_copy(update=change), other)
        assert said in str(refusal.value).splitlines()
    assert other.cells == []


def test_another_teacher_is_another_recipe_but_another_address_is_not(
    settings: BenchSettings, run: FakeRun
) -> None:
    go(settings, run)
    go(settings.model_copy(update={"teacher": "grpc://host:1"}), run)
    assert run.cells == NAMES
    with pytest.raises(ConfigError, match="teacher: it was 'teacher', now 'retrained'"):
        go(settings, run, "retrained")


def test_a_setting_that_came_later_had_its_default() -> None:
    before, now = {"epochs": 3.0, "gone": 1}, {"epochs": 3.0, "temperature": 1.0, "ratio": 0.5}
    assert differences(before, now) == ["gone: it was 1, now None", "ratio: it was 0.1, now 0.5"]


def test_full_kd_chooses_nothing_and_no_kd_has_nothing_of_a_teacher(settings: BenchSettings) -> None:
    pooled = BenchSettings(**settings.model_dump() | {"pool": 64, "adoption": "single"})
    assert cell_settings("all-1-0", pooled).pool is None
    assert cell_settings("none-0-0", pooled).pool is None
    assert cell_settings("entropy-0.1-0", pooled).pool == 64
