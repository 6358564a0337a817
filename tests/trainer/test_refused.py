"""What cannot be used is refused before anything is spent: exit code 2, each mistake on a line of its own."""

import json
import shutil
from pathlib import Path

import pytest
from tiny_task import TRAIN, VALIDATION, rows, save_bert, save_reordered, write_task
from trainers import Trainer, ledger_of, train, usage

from student_trainer.config import ConfigError, DistillSettings, parse
from student_trainer.run import check, run
from student_trainer.run_card import RunCard
from student_trainer.teachers import TeacherUrlError


@pytest.fixture
def refused(command, server, tmp_path: Path):
    """Runs what must be refused; its lines. Nothing was asked, and no run has begun."""

    def run(*flags: object, plain: bool = False, **settings: object) -> list[str]:
        before = usage(server)
        trainer = Trainer(tmp_path, *(("distill", *flags) if plain else command(*flags, **settings)))
        assert trainer.wait() == 2, trainer.log
        assert usage(server) == before
        shown = (tmp_path / "log").read_text()
        assert "Traceback" not in shown
        (tmp_path / "log").unlink()
        return shown.partition("refused: ")[2].splitlines()

    return run


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--strategy", "best"), ["strategy: ", "'random', 'entropy', 'margin' or 'lc'", "(it is 'best')"]),
        (("--ratio", "0"), ["ratio: ", "greater than 0", "(it is '0')", "share of a batch"]),
        (("--ratio", "2"), ["ratio: ", "less than or equal to 1", "(it is '2')"]),
        (("--epochs", "many"), ["epochs: ", "number", "(it is 'many')"]),
        (("--student-layers", "first"), ["student_layers", "(it is 'first')"]),
        (("--budget-usd", "3"), ["budget_usd: ", "price_book"]),
        (("--budget-queries", "0"), ["budget_queries: ", "(it is '0')"]),
        (("--price-book", "nobody"), ["price_book: nobody", "google-natural-language"]),
        (("--price-book", "google-natural-language", "--price-feature", "love"), ["love", "sentiment"]),
        (("--student", "no/such/folder"), ["student: ", "no/such/folder", "config.json"]),
        (("--student", "no-such-name"), ["student: ", "no-such-name", "hub name"]),
        (("--student-layers", "3"), ["student_layers: 3, ", "1 to 2", "0 to 1"]),
        (("--student-layers", "0,2"), ["student_layers: ", "[0, 2]", "0 to 1"]),
        (("--student-layers", "0"), ["student_layers: ", "0 to 1"]),
        (("--student-layers=-1",), ["student_layers: -1", "0 to 1"]),
        (("--student-layers", "0,0"), ["student_layers: [0, 0]", "each once"]),
        (("--layer-map", "nonsense"), ["layer_map: ", "'nonsense'", "skip, last, uniform"]),
        (("--kd-weight", "0"), ["kd_weight: 0 ", "leave the teacher out"]),
        (("--supervision=static", "--patient-weight=0"), ["patient_weight: 0 ", "supervision none"]),
        (("--data", "./nowhere"), ["data: ", "nowhere"]),
        (("--teacher", "ftp://here:1"), ["'ftp://here:1'", "grpc://host:port"]),
        (("--teacher", "grpc://here"), ["'grpc://here'", "hosts and ports"]),
        (
            ("--rounding", "floor", "--ratio", "0.06"),
            ["ratio: 0.06 of a batch of 16", "set rounding nearest"],
        ),
        (("--teacher", "local:./nowhere"), ["local:./nowhere", "cannot be loaded"]),
        (("--teacher-labels", "good,bad,ugly"), ["teacher: ", "'ugly'", "'positive'", "teacher_labels"]),
        (("--max-length", "129"), ["max_length: ", "129 tokens", "student's 128 positions", "set 128"]),
        (("--temperature", "inf"), ["temperature: ", "finite", "(it is 'inf')"]),
        (("--epochs", "nan"), ["epochs: ", "(it is 'nan')"]),
        (("--label-names", "negative,neutral,positive,mixed"), ["teacher: ", "3 classes", "4 ["]),
    ],
)
def test_a_mistake_is_one_line(flags: tuple[str, ...], says: list[str], refused, tmp_path: Path) -> None:
    # A second `--teacher` beside the command's own would name a second teacher.
    lines = refused(teacher=flags[1]) if flags[0] == "--teacher" else refused(*flags)
    assert len(lines) == (2 if "first" in flags else 1), lines  # neither a number nor a list
    assert all(part in lines[0] for part in says), lines
    assert not (tmp_path / "run").exists()


def test_all_mistakes_are_shown_together(refused) -> None:
    lines = refused("--strategy", "best", "--ratio", "2", plain=True)
    assert [line.split(":")[0] for line in lines] == ["data", "output", "student", "strategy", "ratio"]
    assert "it is missing; wanted: pretrained checkpoint" in lines[2]


def test_a_file_of_settings(command, refused, server, task: Path, student: Path, tmp_path: Path) -> None:
    """What it does not know is refused; what a flag says as well, the flag decides."""
    (tmp_path / "run.yaml").write_text(f"data: {task}\nstudent: {student}\noutput: run\nratoi: 0.1\n7: 7\n")
    assert "field: value" in refused("--config", "run.yaml", plain=True)[0]
    settings = f"data: {task}\nstudent: {student}\noutput: run\nteacher: {server.url}\nstudent_layers: 1\n"
    (tmp_path / "run.yaml").write_text(settings + "ratoi: 0.1\n")
    assert refused("--config", "run.yaml", plain=True)[0].startswith(
        "ratoi: no such setting; known are data,"
    )
    (tmp_path / "run.yaml").write_text(
        settings + "strategy: random\nepochs: 0.1\nratio: 0.5\ncheck_rows: 0\n"
    )
    result = train(tmp_path, "distill", "--ratio", "0.25", "--config=run.yaml", "--output", "flags")
    assert (result["strategy"], result["ratio"], result["questions"]["asked"]) == ("random", 0.25, 8)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_run(command, refused, teacher: Path, tmp_path: Path) -> None:
    here = {"teacher": f"local:{teacher}", "epochs": 0.1}
    train(tmp_path, *command(**here))
    (tmp_path / "run" / "result.json").unlink()  # as if it had been killed at its end
    lines = refused(**here)
    assert lines == ["output: run holds a run; set resume, or another folder"]

    lines = refused("--resume", "--seed", 3, "--ratio", 0.5, **here)
    assert lines[0] == "ratio: what is there began with 0.25, not 0.5"
    assert lines[1] == "seed: what is there began with 0, not 3"
    assert "same settings" in lines[2]

    other = save_reordered(teacher, tmp_path / "other", [1, 0, 2])
    (line,) = refused("--resume", "--checkpoint-steps", 7, **here | {"teacher": f"local:{other}"})
    assert line.startswith("teacher: its fingerprint is ")
    assert train(tmp_path, *command("--resume", **here))["questions"]["asked"] == 4

    # Finished, it is only read, but never as the result of another teacher; one that has moved is the same.
    (line,) = refused("--resume", **here | {"teacher": f"local:{other}"})
    assert line.startswith("teacher: its fingerprint is ")
    moved = shutil.copytree(teacher, tmp_path / "moved")
    asked = train(tmp_path, *command("--resume", **here | {"teacher": f"local:{moved}"}))["questions"]
    assert asked["asked"] == 4
    (tmp_path / "run" / "run.json").unlink()
    (line,) = refused("--resume", **here)
    assert line.startswith("output: run has a result and no run.json")


def test_a_run_of_before_a_setting_was_counted_out_goes_on(command, monkeypatch, tmp_path: Path) -> None:
    """Without labels label_loss means nothing: it was kept as given, and is `all` now."""
    monkeypatch.chdir(tmp_path)
    flags = [str(word) for word in command("--no-use-labels", "--resume", label_loss="selected")[1:]]
    settings = parse(DistillSettings, flags, "distill")
    with RunCard.of(settings) as card:
        card.begin("f", "r")
    path = tmp_path / "run" / "run.json"
    begun = json.loads(path.read_text())
    assert begun["recipe"]["label_loss"] == "all"
    path.write_text(json.dumps(begun | {"recipe": begun["recipe"] | {"label_loss": "selected"}}))
    with RunCard.of(settings) as again:
        assert again.id == card.id
    path.write_text(
        json.dumps(begun | {"recipe": begun["recipe"] | {"label_loss": "selected", "ratio": 0.9}})
    )
    with pytest.raises(ConfigError, match="ratio: what is there began with"):
        RunCard.of(settings)


def test_rows_that_have_changed(command, refused, task: Path, teacher: Path, tmp_path: Path) -> None:
    """The same rows in another place are the same rows; one label more or less makes another run."""
    here = {"teacher": f"local:{teacher}", "epochs": 0.1}
    train(tmp_path, *command(**here))
    (tmp_path / "run" / "result.json").unlink()
    moved = Path(shutil.copytree(task, tmp_path / "moved"))
    train(tmp_path, *command("--resume", **here | {"data": moved}))
    (tmp_path / "run" / "result.json").unlink()
    first, *others = (moved / "train.jsonl").read_text().splitlines()
    (moved / "train.jsonl").write_text("\n".join([*others, first]))
    (line,) = refused("--resume", **here | {"data": moved})
    assert line.startswith("data: its rows are not those")


def test_a_folder_that_another_process_works_in(command, refused, teacher: Path, tmp_path: Path) -> None:
    here = {"teacher": f"local:{teacher}"}
    first = Trainer(
        tmp_path, *command("--checkpoint-steps", 4, **here), hold="student_trainer.checkpoint.save"
    )
    assert first.wait_for_steps(5)
    second = tmp_path / "second"
    second.mkdir()
    other = Trainer(second, *command("--resume", output=tmp_path / "run", **here))
    assert other.wait() == 2
    assert "output: another process works in" in other.log
    first.kill()


def test_places_that_cannot_be_written(refused, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder, not a database")
    (line,) = refused("--output", "file")
    assert line.startswith("output: ")
    (line,) = refused("--answers", "file")
    assert line.startswith("answers: ")
    assert not (tmp_path / "run").exists()


def test_a_broken_student(refused, student: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(student, tmp_path / "broken"))
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    (line,) = refused("--student", "broken")
    assert line.startswith("student: 'broken' cannot be loaded")


def test_a_teacher_of_another_task_is_warned_of(command, tmp_path: Path) -> None:
    untaught = save_bert(tmp_path / "untaught", seed=5, layers=1)
    train(tmp_path, *command(teacher=f"local:{untaught}", epochs=0.1, check_rows=30))
    log = " ".join((tmp_path / "log").read_text().split())
    assert "of 30 validation rows, always guessing one class on 10: are its classes in another order" in log


def test_nobody_at_that_address(command, tmp_path: Path) -> None:
    """It may still be starting: it is waited for, and that is said."""
    from processes import free_port

    trainer = Trainer(tmp_path, *command(teacher=f"grpc://127.0.0.1:{free_port()}"))
    trainer.wait_for_text("asking the teacher again in")
    assert trainer.kill() != 0
    assert not (tmp_path / "run").exists()


def test_two_classes_for_a_teacher_of_three(command, refused, tmp_path: Path) -> None:
    two = [row for row in rows(90, "two") if row["label"] != "neutral"]
    write_task(tmp_path / "two", two[:40], two[40:])
    (line,) = refused("--data", "two")
    assert line.startswith("teacher: it has 3 classes ['negative', 'neutral', 'positive'], the data 2")


def test_labels_that_are_missing_where_they_are_needed(command, refused, task: Path, tmp_path: Path) -> None:
    """Without a teacher nothing else is there to learn from; without money labels alone would be left."""
    validation = [json.loads(line) for line in (task / "validation.jsonl").read_text().splitlines()]
    write_task(tmp_path / "bare", [{"text": row["text"]} for row in rows(40, "bare")], validation)
    alone = Trainer(tmp_path, "finetune", "--data", "bare", "--student", "x", "--output", "run")
    assert alone.wait() == 2
    assert "train: no row has a label (auto), and there is no teacher to give one" in alone.log
    (tmp_path / "log").unlink()
    for more in (("--data", "bare"), ("--no-use-labels",)):
        (line,) = refused(*more, when_spent="labels-only")
        assert line.startswith("when_spent: labels-only needs labels")


def test_one_teacher_under_two_addresses(refused, server) -> None:
    twice = f"grpc://{server.grpc}", server.url
    (line,) = refused(teacher=",".join(twice), adoption="ensemble")
    assert line.startswith(
        f"teacher: {twice[0]} and {twice[1]} are one teacher, {server.fingerprint[:12]}…; name"
    )


def test_a_head_whose_classes_are_the_datas_in_another_order(refused, teacher: Path, tmp_path: Path) -> None:
    head = save_reordered(teacher, tmp_path / "head", [2, 0, 1])
    config = head / "config.json"
    # Names are compared as a teacher's are.
    config.write_text(config.read_text().replace('"negative', '"Negative'))
    names = json.loads((teacher / "config.json").read_text())["id2label"]
    (line,) = refused(student=head)
    assert line.startswith(f"student: the head of '{head}' has its classes in the order ")
    order = [names[index].replace("negative", "Negative") for index in "201"]
    assert f"{order}, the data in " in line
    assert "set label_names" in line


def test_a_second_teacher_of_other_classes(command, refused, teacher: Path, tmp_path: Path) -> None:
    other = save_bert(tmp_path / "other", seed=6, layers=1, labels=("negative", "positive", "mixed"))
    (line,) = refused(teacher=f"local:{teacher},local:{other}", adoption="soft")
    assert line.startswith("teacher: its classes ['negative', 'positive', 'mixed'] are not the data's")
    assert line.endswith(f"(it is about local:{other})")


def test_one_key_is_not_shown_to_two_hosts(command, server, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STUDENT_TEACHER_API_KEY", "sesame")
    flags = command(teacher=f"grpc://{server.grpc},http://stranger:80", adoption="hard")
    settings = parse(DistillSettings, [str(word) for word in flags[1:]], "distill")
    for start in (run, check):
        with pytest.raises(TeacherUrlError, match="one key would be shown to 2 teachers, grpc://") as refusal:
            start(settings)
        assert str(refusal.value).endswith(f"say whose it is: {server.grpc}=KEY,stranger:80=KEY")
        assert "sesame" not in str(refusal.value)


def test_a_student_that_has_diverged_stops_asking(command, server, tmp_path: Path) -> None:
    """Its answers are kept, and it is said what to change; no step is spent on what cannot learn."""
    wild = ("--learning-rate", "1e30", "--warmup", "0", "--max-grad-norm", "1e30")
    trainer = Trainer(tmp_path, *command(*wild))
    assert trainer.wait() == 2
    assert "refused: learning_rate: the model has diverged" in " ".join(trainer.log.split())
    assert "Traceback" not in trainer.log
    steps = {row[0] for row in ledger_of(tmp_path) if row[0] >= 0}
    assert 0 < len(steps) < 10


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_text_that_the_teacher_would_refuse_later(split: str, refused, task: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(task, tmp_path / "data"))
    with (data / f"{split}.jsonl").open("a") as file:
        file.write(json.dumps({"text": "é" * 100_001, "label": "neutral"}) + "\n")
    (line,) = refused("--data", "data")
    row = {"train": TRAIN, "validation": VALIDATION}[split] + 1
    assert line.startswith(f"{split}, row {row}: 100,001 characters; ")
    assert "100,000 at most, and reads 12 tokens" in line


def test_empty_texts_are_questions_and_long_ones_are_cut(command, server, task: Path, tmp_path: Path) -> None:
    """Of both sides: an empty text is the special tokens alone, a long one its first tokens."""
    data = Path(shutil.copytree(task, tmp_path / "data"))
    odd = [{"text": "", "label": "neutral"}, {"text": "good " * 15_000, "label": "positive"}] * 8
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in odd))
    result = train(tmp_path, *command(data="data", strategy="all", epochs=2))
    assert result["questions"]["asked"] == 32
    assert result["questions"]["distinct"] == result["questions"]["charged"] == 2
    assert result["questions"]["failed"] == 0
    assert {row[5] for row in ledger_of(tmp_path) if row[0] >= 0} == {0, 75_000}


def test_several_processes_for_one_run(command, server, monkeypatch, tmp_path: Path) -> None:
    """As torchrun and `accelerate launch` start them: neither of the two asks anything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    before = usage(server)
    settings = parse(DistillSettings, [str(word) for word in command()[1:]], "distill")
    for start in (run, check):
        with pytest.raises(ConfigError, match="WORLD_SIZE: 2 processes were launched for one run"):
            start(settings)
    assert usage(server) == before
    assert not (tmp_path / "run").exists()
