"""A tiny task, a teacher that has learnt it, its server, and runs that were not disturbed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import ServerProcess, start_server
from tiny_task import TRAIN, VALIDATION, rows, save_bert, write_task
from trainers import ONE_TEXT_A_RUN, train

RECIPE = ("--learning-rate", "2e-3", "--batch-size", "16", "--epochs", "3", "--max-length", "32")
TEACHER = ("--learning-rate", "2e-3", "--batch-size", "16", "--epochs", "10", "--max-length", "32")

Command = Callable[..., list[object]]


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Of the trainers' processes: two threads on two busy cores would mostly wait for each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        yield


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    return write_task(folder, rows(TRAIN, "train"), rows(VALIDATION, "validation"))


@pytest.fixture(scope="session")
def other_task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same classes in texts that no teacher was asked about before."""
    folder = tmp_path_factory.mktemp("other-task")
    return write_task(folder, rows(TRAIN, "other train"), rows(VALIDATION, "other validation"))


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("student"), seed=2, layers=2)


@pytest.fixture(scope="session")
def finetuned(task: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a teacher of 3 layers."""
    folder = tmp_path_factory.mktemp("finetuned")
    save_bert(folder / "pretrained", seed=1, layers=3)
    train(folder, "finetune", "--data", task, "--student", "pretrained", *TEACHER, "--output", "run")
    return folder / "run"


@pytest.fixture(scope="session")
def teacher(finetuned: Path) -> Path:
    return finetuned / "model"


@pytest.fixture(scope="session")
def tiny_model(teacher: Path) -> Path:
    """What `new_server` serves here."""
    return teacher


@pytest.fixture(scope="session")
def server(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One for all tests that do not harm it."""
    running = start_server(teacher, tmp_path_factory.mktemp("server") / "log", *ONE_TEXT_A_RUN)
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session")
def command(task: Path, student: Path, server: ServerProcess) -> Command:
    """A distillation by entropy in the folder `run`; what is given last wins."""

    def made(*more: object, **settings: object) -> list[object]:
        given = {
            "data": task,
            "student": student,
            "teacher": f"grpc://{server.grpc}",
            "ratio": 0.25,
            "label_loss": "selected",
            "check_rows": 12,
            "output": "run",
        } | settings
        flags = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]
        return ["distill", *RECIPE, *flags, *more]

    return made


@pytest.fixture(scope="session")
def by_entropy(command: Command, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed run, on a server that nobody has asked before."""
    folder = tmp_path_factory.mktemp("by-entropy")
    own = start_server(teacher, folder / "server.log", *ONE_TEXT_A_RUN)
    train(folder, *command(teacher=f"grpc://{own.grpc}"))
    assert own.stop() == 0
    return folder


@pytest.fixture(scope="session")
def at_random(command: Command, other_task: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another one, about other texts: its questions leave a step ahead."""
    folder = tmp_path_factory.mktemp("at-random")
    train(folder, *command(strategy="random", data=other_task))
    return folder
