"""Answers learnt from again, and questions in rounds: what is asked, how often, and what a kill changes."""

import signal
from collections import Counter
from pathlib import Path

import pytest
import torch
from processes import ServerProcess, StartServer
from tiny_task import TRAIN, rows, write_task
from trainers import ONE_TEXT_A_RUN, Trainer, ledger_of, result_of, timeless, train, usage, weights_of

from student_trainer.memory import Memory
from student_trainer.rounds import covering, starts_of
from student_trainer.schedule import Schedule

A_ROUND = ("--pool", 1000, "--rounds", 4)


def questions(folder: Path) -> list[tuple[int, int]]:
    """Step and row of each training question."""
    return [row[:2] for row in ledger_of(folder) if row[0] >= 0]


def test_rounds_are_spread_over_the_first_epoch() -> None:
    assert starts_of(4, Schedule(160, 16, 3, 0)) == [0, 2, 5, 7]
    assert starts_of(4, Schedule(160, 16, 0.4, 0)) == [0, 1, 2, 3]
    assert starts_of(4, Schedule(32, 16, 1, 0)) == [0, 0, 1, 1]  # more rounds than steps


def test_memory_goes_through_a_checkpoint() -> None:
    memory, other = Memory(5, 2), Memory(5, 2)
    memory.remember([3, 1], torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    memory.learnt([3])
    memory.temperature = 2.5
    other.load_state_dict(memory.state_dict())
    assert other.temperature == 2.5
    assert other.known().tolist() == [False, True, False, True, False]
    assert other.known([3, 0]).tolist() == [True, False]
    assert other.weights[3].tolist() == [1.0, 0.0]
    assert other.turns.tolist() == [0, 0, 0, 1, 0]


def test_what_is_known_has_a_turn_each_before_any_has_another() -> None:
    memory, lots = Memory(20, 1), torch.Generator().manual_seed(0)
    memory.remember(range(10), torch.ones(10, 1))
    turns = []
    for _ in range(7):
        turns.append(memory.next(4, lots))
        memory.learnt(turns[-1])
    drawn = [row for batch in turns for row in batch]
    assert sorted(drawn[:10]) == sorted(drawn[10:20]) == list(range(10))
    assert drawn[:10] != drawn[10:20]
    memory.remember([drawn[0], 15], torch.ones(2, 1))
    assert memory.turns[[drawn[0], 15]].tolist() == [3, 2]  # the new one is level with the last
    assert len(memory.next(99, lots)) == 11


def test_coverage_takes_one_of_each_cluster() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    points = torch.cat([centre + 0.01 * torch.randn(25, 2) for centre in centres])
    places = covering(points, 4, seed=0)
    assert sorted(place // 25 for place in places.tolist()) == [0, 1, 2, 3]
    assert covering(points, 200, seed=0).tolist() == list(range(100))
    twins = torch.zeros(6, 2)
    assert len(set(covering(twins, 3, seed=0).tolist())) == 3


@pytest.mark.parametrize("flags", [("--strategy", "random"), ("--warm-start", "coverage")])
def test_a_round_never_asks_about_a_row_twice(
    flags: tuple[str, ...], command, server, tmp_path: Path
) -> None:
    """A quarter of the rows, in four parts that begin where rounds begin; all steps are learnt."""
    result = train(tmp_path, *command(*flags, *A_ROUND, label_loss="all"))
    asked = questions(tmp_path)
    assert Counter(step for step, _ in asked) == {0: 12, 3: 12, 6: 12, 9: 12}
    assert len({row for _, row in asked}) == len(asked) == TRAIN // 4
    assert (result["steps"], result["scheme"]) == (36, "in_rounds")
    assert result["questions"]["asked"] == result["questions"]["distinct"] == 48


def test_of_more_rounds_than_questions_some_ask_nothing(command, tmp_path: Path) -> None:
    flags = ("--warm-start", "coverage", "--warm-share", 0.9)
    result = train(tmp_path, *command(*flags, *A_ROUND, ratio=0.01, adoption="single"))
    assert [step for step, _ in questions(tmp_path)] == [3, 9]
    assert (result["steps"], result["questions"]["asked"]) == (36, 2)


def test_a_calibrated_run_doubts_others_once_it_was_told_something(
    command, teacher: Path, tmp_path: Path
) -> None:
    flags = command(*A_ROUND, teacher=f"local:{teacher}", label_loss="all")
    train(tmp_path, *flags)
    train(tmp_path, *flags, "--calibrated", "--output", "other")
    plain, calibrated = (
        [row[:2] for row in ledger_of(tmp_path, run) if row[0] >= 0] for run in ("run", "other")
    )
    assert len(calibrated) == len(plain) == 48
    assert calibrated[:12] == plain[:12] and set(calibrated) != set(plain)


def test_without_labels_batches_are_of_what_is_known(command, teacher: Path, tmp_path: Path) -> None:
    bare = [{"text": row["text"]} for row in rows(TRAIN, "train")]
    task = write_task(tmp_path / "task", bare, rows(30, "validation"))
    more = (*A_ROUND, "--ratio", 0.5, "--strategy", "random", "--epochs", 6)
    taught = train(tmp_path, *command(*more, data=task, teacher=f"local:{teacher}", label_loss="all"))
    assert taught["questions"]["asked"] == TRAIN // 2
    assert taught["scores"]["accuracy"] > 0.6


def test_replay_teaches_more_and_asks_about_others(command, server, tmp_path: Path) -> None:
    """The first epoch is the same; later ones learn from what is known, and ask about what is not."""
    both = {"strategy": "random", "label_loss": "all"}
    plain = train(tmp_path, *command(output="plain", **both))["questions"]
    again = train(tmp_path, *command("--replay", **both))["questions"]
    assert again["asked"] == again["distinct"] == plain["asked"] == 144 > plain["distinct"]
    assert questions(tmp_path)[:48] == [row[:2] for row in ledger_of(tmp_path, "plain") if row[0] >= 0][:48]
    train(tmp_path, *command(output="one", epochs=1, **both))
    train(tmp_path, *command("--replay", output="one-again", epochs=1, **both))
    assert weights_of(tmp_path / "one") == weights_of(tmp_path / "one-again")  # nothing to learn again yet


def test_a_ratio_of_all_rows(command, teacher: Path, tmp_path: Path) -> None:
    """A tenth of the rows over three epochs, a question or none a step."""
    more = ("--ratio-of", "rows", "--replay", "--rounding", "spread", "--strategy", "margin")
    asked = train(tmp_path, *command(*more, teacher=f"local:{teacher}", ratio=0.1))["questions"]
    assert asked["asked"] == asked["distinct"] == TRAIN // 10


@pytest.mark.parametrize(
    "flags", [(*A_ROUND, "--calibrated"), ("--replay", "--strategy", "random")], ids=["rounds", "replay"]
)
def test_killed_runs_remember_what_they_were_told(
    flags: tuple[str, ...], command, new_server: StartServer, tmp_path: Path
) -> None:
    server: ServerProcess = new_server(*ONE_TEXT_A_RUN)
    words = command(
        "--checkpoint-steps", 4, "--resume", *flags, teacher=f"grpc://{server.grpc}", label_loss="all"
    )
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    for steps in (6, 10):
        trainer = Trainer(broken, *words)
        assert trainer.wait_for_steps(steps)
        assert trainer.kill() == -signal.SIGKILL
    last = Trainer(broken, *words)
    assert last.wait() == 0, last.log
    result = result_of(broken / "run")
    assert usage(server)["charged"] == result["questions"]["charged"] + result["questions"]["checked"]
    unbroken = train(whole, *words)
    assert weights_of(broken / "run") == weights_of(whole / "run")
    assert [row[:4] for row in ledger_of(broken)] == [row[:4] for row in ledger_of(whole)]
    assert timeless(result)["scores"] == unbroken["scores"]


def test_a_budget_ends_a_run_before_a_round_that_it_cannot_pay(
    command, new_server: StartServer, tmp_path: Path
) -> None:
    server = new_server(*ONE_TEXT_A_RUN)
    flags = command("--resume", *A_ROUND, teacher=f"grpc://{server.grpc}", check_rows=0, label_loss="all")
    poor = train(tmp_path, *flags, "--budget-queries", 30)
    assert (poor["stopped"], poor["steps"], usage(server)["charged"]) == (True, 6, 30)
    rich = train(tmp_path, *flags, "--budget-queries", 100)
    assert (rich["stopped"], rich["steps"], usage(server)["charged"]) == (False, 36, 48)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--pool", "0"), "pool: "),
        (("--pool", "9", "--strategy", "all"), "pool: there is nothing to choose"),
        (("--warm-start", "coverage"), "warm_start: coverage looks at more than a batch"),
        (("--warm-share", "1"), "warm_share: "),
        (("--calibrated",), "calibrated: it learns from round to round"),
    ],
)
def test_what_does_not_fit_is_refused(flags: tuple[str, ...], says: str, command, tmp_path: Path) -> None:
    trainer = Trainer(tmp_path, *command(*flags))
    assert trainer.wait() == 2, trainer.log
    assert f"refused: {says}" in trainer.log
