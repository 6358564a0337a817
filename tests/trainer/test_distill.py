"""`student-trainer distill`, to the end: every transport, every strategy, labels or none, pairs, layers."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, load_file
from tiny_task import TRAIN, rows, save_reordered, write_task
from trainers import Trainer, ledger_of, result_of, train, weights_of

STEPS = TRAIN // 16 * 3
# What the last bit of a teacher's logits, which its batches decide, may grow to: half a step of AdamW.
DRIFT = 1e-3


def test_a_student_learns_from_a_quarter_of_its_batches(by_entropy: Path) -> None:
    result = result_of(by_entropy / "run")
    assert result["scores"]["accuracy"] > 0.5
    assert (result["steps"], result["scheme"]) == (STEPS, "two_pass")
    questions = result["questions"]
    assert (questions["seen"], questions["asked"]) == (STEPS * 16, STEPS * 4)
    assert questions["asked"] == questions["charged"] + questions["kept"]
    assert questions["distinct"] == questions["charged"] > 0
    assert questions["kept"] > 0  # of an earlier epoch
    assert questions["checked"] == 12


@pytest.mark.parametrize("transport", ["http", "local"])
def test_every_transport_gives_the_same_student(
    transport: str, command, by_entropy: Path, teacher: Path, server, tmp_path: Path
) -> None:
    url = server.url if transport == "http" else f"local:{teacher}"
    train(tmp_path, *command(teacher=url))
    one, other = (ledger_of(folder) for folder in (by_entropy, tmp_path))
    assert [row[:2] for row in one] == [row[:2] for row in other]
    over_grpc, here = load(weights_of(by_entropy / "run")), load(weights_of(tmp_path / "run"))
    tolerance = 0 if transport == "http" else DRIFT
    for name, weights in over_grpc.items():
        torch.testing.assert_close(here[name], weights, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("strategy", "more", "asked", "scheme"),
    [
        ("all", (), 16, "full"),
        ("random", (), 4, "random"),
        ("margin", ("--label-loss", "all"), 4, "two_pass_on_all"),
        ("random", ("--label-loss", "all"), 4, "backward_on_all"),
        (
            "lc",
            ("--rounding", "floor", "--ratio", 0.3, "--divergence", "mse", "--score-dropout"),
            4,
            "two_pass",
        ),
    ],
)
def test_every_strategy_runs(
    strategy: str, more: tuple[object, ...], asked: int, scheme: str, command, teacher: Path, tmp_path: Path
) -> None:
    more = ("--strategy", strategy, *more)
    result = train(tmp_path, *command(*more, teacher=f"local:{teacher}"))
    assert (result["strategy"], result["scheme"]) == (strategy, scheme)
    assert result["questions"]["asked"] == STEPS * asked
    if strategy == "all":
        assert result["questions"]["charged"] == TRAIN == result["questions"]["kept"] / 2
        assert result["scores"]["accuracy"] > 0.5


def test_a_teacher_with_its_classes_in_another_order_teaches_the_same(
    command, by_entropy: Path, teacher: Path, tmp_path: Path
) -> None:
    reordered = save_reordered(teacher, tmp_path / "reordered", [2, 0, 1])
    train(tmp_path, *command(teacher=f"local:{reordered}"))
    ledgers = (ledger_of(folder) for folder in (by_entropy, tmp_path))
    one, other = ([row[:2] for row in ledger] for ledger in ledgers)
    assert one == other
    assert "always guessing" not in (tmp_path / "log").read_text()
    one, other = load(weights_of(by_entropy / "run")), load(weights_of(tmp_path / "run"))
    for name, weights in one.items():
        torch.testing.assert_close(other[name], weights, rtol=0, atol=DRIFT)


def test_rows_without_labels_teach_through_the_teacher_alone(command, teacher: Path, tmp_path: Path) -> None:
    bare = [{"text": row["text"]} for row in rows(TRAIN, "train")]
    task = write_task(tmp_path / "task", bare, rows(30, "validation"))
    more = ("--strategy", "all", "--epochs", "6")
    taught = train(tmp_path, *command(*more, data=task, teacher=f"local:{teacher}"))
    assert taught["scores"]["accuracy"] > 0.7


def test_labels_that_are_not_used_change_nothing(command, teacher: Path, tmp_path: Path) -> None:
    """As if the rows had none; and where there is no teacher either, there is nothing to learn."""
    bare = write_task(
        tmp_path / "bare", [{"text": row["text"]} for row in rows(TRAIN, "train")], rows(30, "validation")
    )
    more = ("--strategy", "random", "--rounding", "spread", "--ratio", 0.03)
    here = {"teacher": f"local:{teacher}", "label_names": "negative,neutral,positive"}
    unlabelled = train(tmp_path, *command(*more, data=bare, output="unlabelled", **here))
    unused = train(tmp_path, *command(*more, "--no-use-labels", **here))
    assert weights_of(tmp_path / "run") == weights_of(tmp_path / "unlabelled")
    assert unused["questions"]["asked"] == unlabelled["questions"]["asked"] == int(TRAIN * 3 * 0.03)
    flags = command("--no-use-labels")
    at = flags.index("--teacher")
    trainer = Trainer(tmp_path, *flags[:at], *flags[at + 2 :])
    assert trainer.wait() == 2
    assert "use_labels: without labels and without a teacher" in trainer.log


def test_without_a_teacher_nothing_is_asked(command, by_entropy: Path, tmp_path: Path) -> None:
    flags = command()
    at = flags.index("--teacher")
    result = train(tmp_path, *flags[:at], *flags[at + 2 :])
    assert (result["strategy"], result["ratio"]) == ("none", 0)
    assert result["questions"] == dict.fromkeys(result["questions"], 0) | {"seen": STEPS * 16}
    assert not (tmp_path / "answers.sqlite").exists()
    assert weights_of(tmp_path / "run") != weights_of(by_entropy / "run")


def test_pairs(command, student: Path, teacher: Path, tmp_path: Path) -> None:
    """Two texts of one row are one question; cut apart, they would be others."""

    def paired(made: list[dict[str, str]]) -> list[dict[str, str]]:
        return [
            {"sentence1": first, "sentence2": second, "label": row["label"]}
            for row in made
            for first, _, second in [row["text"].partition(" ")]
        ]

    task = write_task(tmp_path / "task", paired(rows(96, "train")), paired(rows(30, "validation")))
    result = train(tmp_path, *command(data=task, teacher=f"local:{teacher}"))
    assert result["questions"]["asked"] == 6 * 3 * 4
    single = write_task(tmp_path / "single", rows(96, "train"), rows(30, "validation"))
    train(tmp_path, *command(data=single, teacher=f"local:{teacher}", output="single-run"))
    pairs, singles = ({row[3] for row in ledger_of(tmp_path, run)} for run in ("run", "single-run"))
    assert not pairs & singles


@pytest.mark.parametrize(("layers", "kept"), [("2", [0, 1]), ("2,0", [2, 0]), ("[2]", [2])])
def test_a_student_of_the_teachers_layers(
    layers: str, kept: list[int], command, teacher: Path, tmp_path: Path
) -> None:
    """At a rate that moves nothing the student is what it began with: the teacher's own layers."""
    here = {"student": teacher, "teacher": f"local:{teacher}", "student_layers": layers}
    train(tmp_path, *command("--learning-rate", "1e-30", epochs=0.1, **here))
    ours = load_file(tmp_path / "run" / "model" / "model.safetensors")
    theirs = load_file(teacher / "model.safetensors")
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["num_hidden_layers"] == len(kept)
    layer = "bert.encoder.layer.{}.{}"
    for name, weights in ours.items():
        if name.startswith("bert.encoder.layer."):
            number, rest = name.split(".", 4)[3:]
            assert torch.equal(weights, theirs[layer.format(kept[int(number)], rest)])
        else:
            assert torch.equal(weights, theirs[name])
    assert sum(name.startswith("bert.encoder") for name in ours) == len(kept) * 16
