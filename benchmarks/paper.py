"""The suites' measurements of docs/log.md, from packages and a folder of rows to results that are kept.

    python benchmarks/paper.py table1 --data trec6=FOLDER                  # with gold labels
    python benchmarks/paper.py frontier --data trec6=FOLDER --label-free   # by the teacher's answers alone

FOLDER has train.jsonl and validation.jsonl. Each command is printed before it runs, as you would type it.
What is there is kept: encoders, teachers (MiniLM 6 x 384 is the small one, MPNet 12 x 768 the large), their
answers, each recorded once, and finished cells. Cells and recorded logits are in docs/results, where every
suite of a setting goes on; table5, figure6, combined and frontier-states need hidden states too: large, they
stay in runs. table4's general stage compares token by token: its student has the teacher's whole vocabulary,
and asks the teacher itself, for no recording has attentions.
"""

import os
import shlex
import shutil
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
HERE = Path(__file__).parent
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
STUDENT_LAYERS = "3"
STUDENTS = "whose first 3 layers it starts from: the small teacher's encoder, or one with weights of its own"
HIDDEN = ("table5", "figure6", "combined", "frontier-states")  # suites that learn from hidden states
GENERAL = ("table4",)  # suites with a general stage
IN_PROCESS = "128"  # tokens at which a teacher in process cuts, and so must its student there
LAYERS = {"small": "2,4", "large": "4,8"}  # those of 6 and 12 that a student of 3 layers is matched to (skip)


@dataclass(frozen=True)
class Recipe:
    """How a data set is learnt: epochs and learning rates of the small and the large teacher, of students."""

    small: tuple[str, str]
    large: tuple[str, str]
    student: tuple[str, str]
    max_length: str = "64"
    metric: str = "accuracy"


RECIPES = {
    "trec6": Recipe(small=("3", "8e-5"), large=("2", "5e-5"), student=("2", "2e-4")),
    "cola": Recipe(small=("3", "8e-5"), large=("2", "5e-5"), student=("2", "1e-4"), metric="matthews"),
    "sst5": Recipe(small=("2", "8e-5"), large=("2", "5e-5"), student=("2", "1e-4")),
    "mrpc": Recipe(small=("3", "8e-5"), large=("2", "5e-5"), student=("3", "1e-4"), max_length="128"),
}


def main() -> None:
    chosen = arguments()
    encoders = chosen.work / "checkpoints"
    run(sys.executable, HERE / "checkpoints.py", encoders)
    for data, folder in chosen.data.items():
        trimmed = encoders / f"{chosen.student}-{data}"
        if not trimmed.exists():
            run(sys.executable, HERE / "trim_vocabulary.py", encoders / chosen.student, folder, trimmed)
        for size, encoder in (("small", "minilm-6"), ("large", "mpnet-12")):
            if size in chosen.teachers:
                teach(chosen, data, folder, size, encoders / encoder)
    for data, folder in chosen.data.items():
        bench(chosen, data, folder)


def arguments() -> Namespace:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", help="such as table1, or the path of one's own")
    parser.add_argument("--data", nargs="+", required=True, help=f"NAME=FOLDER of {', '.join(RECIPES)}")
    parser.add_argument("--label-free", action="store_true", help="train by the teacher's answers alone")
    parser.add_argument("--student", default="minilm-6", choices=["minilm-6", "minilm-3"], help=STUDENTS)
    parser.add_argument("--teachers", nargs="+", default=["small"], choices=["small", "large"])
    parser.add_argument("--precision", default="no", help="of all training: bf16 where a processor has it")
    parser.add_argument("--max-rows", help="of each data set, also for teachers that are not there yet")
    parser.add_argument("--work", type=Path, default=Path("runs/paper"))
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    chosen, rest = parser.parse_known_args()
    chosen.rows = ["--max-rows", chosen.max_rows] if chosen.max_rows else []
    chosen.rest, chosen.data = rest, dict(one.split("=", 1) for one in chosen.data)
    return chosen


def teach(chosen: Namespace, data: str, folder: str, size: str, encoder: Path) -> None:
    """The teacher, and its answers about all rows where those are wanted; what is there already is kept."""
    recording = recordings(chosen) / f"{data}-{size}.rec"
    teacher, general = chosen.work / "teachers" / f"{data}-{size}", chosen.suite in GENERAL
    if recording.exists() and not general:
        return
    there = (teacher / "result.json").exists()
    if "--dry-run" in chosen.rest and not (there and general):
        sys.exit(f"{recording if there else teacher} is not there yet, and a dry run makes nothing")
    if not there:
        finetune(chosen, data, folder, size, encoder, teacher)
    if not general:
        record(chosen, folder, size, teacher, recording)


def finetune(chosen: Namespace, data: str, folder: str, size: str, encoder: Path, teacher: Path) -> None:
    recipe = RECIPES[data]
    epochs, rate = recipe.small if size == "small" else recipe.large
    how = ["--epochs", epochs, "--learning-rate", rate, "--max-length", recipe.max_length]
    how += ["--precision", chosen.precision, *chosen.rows]
    kept = ["--metric", recipe.metric, "--resume", "--output", teacher]
    trainer("finetune", "--data", folder, "--student", encoder, *how, *kept)


def record(chosen: Namespace, folder: str, size: str, teacher: Path, recording: Path) -> None:
    work = chosen.work / f"{teacher.name}.part"
    wanted = ["--layers", LAYERS[size]] if chosen.suite in HIDDEN else []
    source = ["--data", folder, *chosen.rows, "--teacher", f"local:{teacher / 'model'}"]
    account = ["--answers", chosen.work / "recorded.sqlite"]  # the ledger: it has no place in a recording
    trainer("record", *source, *wanted, *account, "--output", work)
    recording.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(work, recording)


def recordings(chosen: Namespace) -> Path:
    return chosen.work / "hidden" if chosen.suite in HIDDEN else chosen.results


def address(chosen: Namespace, size: str) -> str:
    """Of the teacher that a suite asks about {data}."""
    if chosen.suite in GENERAL:
        return f"local:{chosen.work}/teachers/{{data}}-{size}/model"
    return f"recorded:{recordings(chosen)}/{{data}}-{size}.rec"


def bench(chosen: Namespace, data: str, folder: str) -> None:
    recipe, work, setting = RECIPES[data], chosen.work, "label-free" if chosen.label_free else "labels"
    epochs, rate = recipe.student
    general = chosen.suite in GENERAL
    student = f"{work}/checkpoints/{chosen.student}{'' if general else '-{data}'}"
    max_length = IN_PROCESS if general else recipe.max_length
    trainer(
        *("bench", "--suite", chosen.suite, "--data-sets", f"{data}={folder}"),
        *("--teachers", ",".join(f"{size}={address(chosen, size)}" for size in chosen.teachers)),
        *("--student", student, "--student-layers", STUDENT_LAYERS),
        *("--max-length", max_length, "--epochs", epochs, "--learning-rate", rate),
        *("--precision", chosen.precision, *chosen.rows),
        *(["--no-use-labels"] if chosen.label_free else []),
        *("--check-rows", "0", "--price-book", "google-natural-language"),
        *("--answers", work / f"answers-{data}.sqlite", "--results", chosen.results / f"{setting}.jsonl"),
        *("--output", work / f"{Path(chosen.suite).stem}-{data}-{setting}-{chosen.student}", *chosen.rest),
    )


def trainer(*words: str | Path) -> None:
    run(BIN / "student-trainer", *words)


def run(*words: str | Path) -> None:
    print(f"\n$ {shlex.join(shown(words))}", flush=True)
    if code := subprocess.run([*map(str, words)], env=ENVIRONMENT, check=False).returncode:
        sys.exit(code)  # the command has said why


def shown(words: Iterable[str | Path]) -> list[str]:
    return [Path(word).name if Path(word).parent == BIN else str(word) for word in words]


if __name__ == "__main__":
    main()
