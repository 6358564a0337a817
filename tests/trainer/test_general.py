"""TinyBERT's two stages: token by token what the teacher has, one account, and a kill in either stage."""

import signal
from pathlib import Path

import pytest
from safetensors.torch import load
from tiny_task import LABELS, TRAIN, save_bert
from trainers import ONE_TEXT_A_RUN, Trainer, ledger_of, result_of, timeless, train, usage, weights_of
from transformers import AutoTokenizer

from student_trainer import student as students
from student_trainer.config import DistillSettings
from student_trainer.insides import Insides, Insight, insides_loss
from student_trainer.layers import Projection
from student_trainer.learner import Learner
from student_trainer.student import Anatomy
from teacher_api.messages import Instance
from teacher_server.model import Model

TEXTS = ["good", "the great fair", "", "unheard of words and good ones " * 9, "fine even"]
BOOK = """
as_of = 2026-01-01
source = "made up: a tenth of a cent for each text"

[features.sentiment]
unit_characters = 1000
tiers = [{ usd_per_1000 = 1 }]
"""
STEPS = TRAIN // 16


def settings_of(**given: object) -> DistillSettings:
    fixed = {"data": "d", "output": "o", "student": "s", "teacher": "local:t", "preset": "tinybert"}
    return DistillSettings(**fixed | given)


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-9), ("float16", 1e-5)])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(dtype: str, bound: float, teacher: Path) -> None:
    """In one padded batch of unequal lengths, cut and empty texts among them; the teacher runs packed."""
    settings = settings_of(max_length=32, hidden_dtype=dtype)
    serving = Model.load(str(teacher), max_length=32)
    model, tokenizer = students.load(str(teacher), LABELS, None, 0)
    insight = Insight.between(serving.description, Anatomy.of(model, tokenizer, 32), settings)
    assert insight.attentions == [(1, 1), (2, 2), (3, 3)]
    instances = [Instance(text) for text in TEXTS]
    answers = serving.run(serving.encode(instances), [insight.want(settings)] * len(instances))
    ours = Learner(model, tokenizer, settings, 10).insides(instances, insight)
    theirs = Insides.of(answers, insight, ours.mask.sum(1).tolist())
    same = Projection(4, 32, 32, seed=0)
    assert insides_loss(ours, theirs, same).item() < bound
    other = Insides.of(answers[1:2] + answers[:1] + answers[2:], insight, theirs.mask.sum(1)[[1, 0, 2, 3, 4]])
    assert insides_loss(ours[[1, 0, 2, 3, 4]], other, same).item() < bound
    moved = Insides(theirs.states.roll(1, 1), theirs.attentions, theirs.mask)
    assert insides_loss(ours, moved, same).item() > 0.1
    moved = Insides(theirs.states, theirs.attentions.roll(1, 2), theirs.mask)  # another head
    assert insides_loss(ours, moved, same).item() > 100 * bound


def test_both_stages_are_killed_and_go_on(command, new_server, other_task: Path, tmp_path: Path) -> None:
    """Weights, ledger and account as if unbroken; what the general stage asked is kept for the other."""
    (tmp_path / "book.toml").write_text(BOOK)
    flags = command(
        "--checkpoint-steps",
        4,
        "--resume",
        preset="tinybert",
        general_epochs=1.5,
        general_ratio=0.5,
        epochs=1,
        max_length=12,
        price_book=tmp_path / "book.toml",
        data=other_task,
    )
    folders = tmp_path / "whole", tmp_path / "broken"
    charged = []
    for folder, kills in zip(folders, ((), (6, 10, 9)), strict=True):
        folder.mkdir()
        server = new_server(*ONE_TEXT_A_RUN)
        own = list(flags)
        own[own.index("--teacher") + 1] = server.url
        for steps in kills:
            trainer = Trainer(folder, *own)
            assert trainer.wait_for_steps(steps)
            assert trainer.kill() == -signal.SIGKILL
        train(folder, *own)
        charged.append(usage(server)["charged"])
    whole, broken = (result_of(folder / "run") for folder in folders)
    assert timeless(broken) == timeless(whole)
    assert weights_of(folders[0] / "run") == weights_of(folders[1] / "run")
    assert ledger_of(folders[0]) == ledger_of(folders[1])
    general, predictions = whole["stages"]["general"], whole["stages"]["predictions"]
    assert (general["steps"], predictions["steps"]) == (STEPS * 3 // 2, STEPS)
    assert general["questions"]["asked"] == general["units"] == 8 * general["steps"]
    assert predictions["questions"]["asked"] == 4 * STEPS
    assert predictions["questions"]["kept"] > 0
    for name in ("asked", "charged", "kept"):
        assert general["questions"][name] + predictions["questions"][name] == whole["questions"][name]
    paid = whole["questions"]["charged"] + whole["questions"]["checked"]
    assert charged == [paid, paid]
    assert general["usd"] == pytest.approx(0.001 * general["units"])
    assert general["usd"] + predictions["usd"] == pytest.approx(whole["usd"]["selected"])
    assert "general stage: 18 steps, 144 questions" in " ".join((folders[0] / "log").read_text().split())


SHARED = ("--general-folder", "general")


def learns(folder: Path, steps: int, *arguments: object) -> None:
    """A run to its end, in so many steps."""
    trainer = Trainer(folder, *arguments)
    assert trainer.wait_for_steps(steps)
    assert not trainer.wait_for_steps(1), f"more than {steps} steps"
    assert trainer.wait() == 0, trainer.log


def whole_stage(command, *more: object, **settings: object) -> list[object]:
    """A run of both stages that asks about all rows in the first."""
    return command(*more, preset="tinybert", general_epochs=1, epochs=1, max_length=12, **settings)


@pytest.mark.parametrize("held", [None, "student_trainer.checkpoint.copy"])
def test_a_general_stage_is_learnt_once(held: str | None, command, tmp_path: Path) -> None:
    """Who takes it over, even in two attempts, ends as who has learnt it: weights, ledger and account."""
    other = {"strategy": "random", "ratio": 0.5}
    train(tmp_path, *whole_stage(command, *SHARED, output="first"))
    taking = whole_stage(command, *SHARED, "--resume", output="second", **other)
    if held:
        trainer = Trainer(tmp_path, *taking, hold=held)
        assert trainer.wait_for_steps(1)
        trainer.kill()
    learns(tmp_path, STEPS, *taking)
    learnt = train(tmp_path, *whole_stage(command, output="third", **other))
    assert timeless(result_of(tmp_path / "second")) == timeless(learnt)
    assert learnt["stages"]["general"]["questions"]["kept"] == TRAIN
    assert weights_of(tmp_path / "second") == weights_of(tmp_path / "third")
    assert ledger_of(tmp_path, "second") == ledger_of(tmp_path, "third")


@pytest.mark.parametrize("other", [{"seed": 1}, {"layer_map": "2:1"}, {"snapshots": 2}])
def test_another_general_stage_is_not_taken_over(other: dict[str, object], command, tmp_path: Path) -> None:
    """Nor any where the student is to be seen at its first step, too."""
    train(tmp_path, *whole_stage(command, *SHARED, output="first"))
    learns(tmp_path, 2 * STEPS, *whole_stage(command, *SHARED, output="second", **other))
    snapshots = sorted(path.name for path in (tmp_path / "second" / "snapshots").glob("*"))
    assert snapshots == [f"{step:08d}" for step in (0, STEPS)[: 2 * ("snapshots" in other)]]


def test_who_has_other_answers_learns_the_stage_and_replaces_it(command, tmp_path: Path) -> None:
    """They would have to be asked for again: what a run learnt from is in its own file."""
    elsewhere = {"answers": "elsewhere.sqlite"}
    train(tmp_path, *whole_stage(command, *SHARED, output="first"))
    learns(tmp_path, 2 * STEPS, *whole_stage(command, *SHARED, output="second", **elsewhere))
    learns(tmp_path, STEPS, *whole_stage(command, *SHARED, output="third", strategy="random", **elsewhere))


def test_who_learnt_it_goes_on_behind_it_after_a_kill(command, tmp_path: Path) -> None:
    """Though its own last checkpoint is older, or there is none."""
    flags = whole_stage(command, *SHARED, "--resume", output="first")
    trainer = Trainer(tmp_path, *flags)
    assert trainer.wait_for_steps(STEPS + 2)
    assert trainer.kill() == -signal.SIGKILL
    learns(tmp_path, STEPS, *flags)
    result, unbroken = result_of(tmp_path / "first"), train(tmp_path, *whole_stage(command, output="second"))
    assert weights_of(tmp_path / "first") == weights_of(tmp_path / "second")
    assert result["questions"]["asked"] == unbroken["questions"]["asked"]
    assert result["stages"]["general"]["units"] == unbroken["stages"]["general"]["units"]


def test_a_stage_that_a_budget_cut_is_not_shared(command, other_task: Path, tmp_path: Path) -> None:
    """Its student has learnt less than one that may ask all."""
    poor = {"budget_queries": 100, "when_spent": "labels-only", "check_rows": 0, "data": other_task}
    result = train(tmp_path, *whole_stage(command, *SHARED, output="first", **poor))
    assert result["stages"]["general"]["questions"]["refused"] > 0
    rich = poor | {"budget_queries": 10_000, "strategy": "random"}
    learns(tmp_path, 2 * STEPS, *whole_stage(command, *SHARED, output="second", **rich))


def test_a_grid_learns_the_general_stage_once(command, tmp_path: Path) -> None:
    """And what its runs have shared is gone in the end."""
    words = whole_stage(command, "--ratios", 0.25, "--strategies", "entropy", "--seeds", 0, output="grid")
    place = words.index("--ratio")
    # no KD, the stage, random, entropy, full KD
    learns(tmp_path, 5 * STEPS, "bench", *words[1:place], *words[place + 2 :])
    assert not (tmp_path / "grid" / ".general").exists()


def test_another_width_is_projected_and_changes_the_student(command, tmp_path: Path) -> None:
    """Hidden states alone, of an untaught teacher whose heads differ as well."""
    wide = save_bert(tmp_path / "wide", seed=9, layers=4, hidden=48, heads=4)
    more = {"teacher": f"local:{wide}", "max_length": 128, "epochs": 0.2}
    train(tmp_path, *command(output="plain", **more))
    general = command("--no-general-attentions", general_epochs=0.5, layer_map="uniform", **more)
    train(tmp_path, *general)
    one, other = load(weights_of(tmp_path / "plain")), load(weights_of(tmp_path / "run"))
    assert one.keys() == other.keys()
    assert not one["bert.embeddings.word_embeddings.weight"].equal(
        other["bert.embeddings.word_embeddings.weight"]
    )


@pytest.mark.parametrize("hidden", [32, 48])
def test_hidden_states_in_both_stages(hidden: int, command, tmp_path: Path) -> None:
    """Each has projections of its own; the second's pooled states are in what the first was told."""
    other = save_bert(tmp_path / "other", seed=9, layers=4, hidden=hidden)
    more = {"teacher": f"local:{other}", "general_epochs": 1, "epochs": 1, "max_length": 128}
    result = train(tmp_path, *command("--supervision", "dynamic", check_rows=0, **more))
    stages = result["stages"]
    assert [stages[name]["steps"] for name in ("general", "predictions")] == [STEPS, STEPS]
    assert stages["predictions"]["questions"]["kept"] == stages["predictions"]["questions"]["asked"] > 0


def test_what_cannot_be_compared_is_refused(command, teacher: Path, student: Path, tmp_path: Path) -> None:
    save_bert(tmp_path / "heads", seed=3, layers=2, heads=4)
    words = save_bert(tmp_path / "words", seed=3, layers=2)
    tokenizer = AutoTokenizer.from_pretrained(words)
    tokenizer.add_tokens(["another"])
    tokenizer.save_pretrained(words)
    here = {"teacher": f"local:{teacher}", "preset": "tinybert", "max_length": 128}
    cases = [
        ({"student": "words"}, "general_epochs: model and the student have different vocabularies"),
        ({"student": "heads"}, "general_attentions: model gives 2 heads, the student has 4; take a student"),
        (
            {"max_length": 32},
            "max_length: 32; the general stage compares token by token, and model cuts",
        ),
        ({"general_folder": "words/config.json"}, "general_folder: cannot be written: "),
        ({"layer_map": "4:1"}, "layer_map: '4:1' names layer 4 of the teacher; it has 0 to 3"),
    ]
    for wrong, says in cases:
        trainer = Trainer(tmp_path, *command(**here | wrong))
        assert trainer.wait() == 2, trainer.log
        assert says in trainer.log
        assert not (tmp_path / "run").exists()
        (tmp_path / "log").unlink()
