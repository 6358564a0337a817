"""The README does what it says: its commands run in their order, its tables and its tree are current."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import metrics_table
import pytest
from settings_table import README, written

ROOT = README.parent
TEXT = README.read_text()
# Blocks behind this comment cannot run inside of a test; the comment says why.
BLOCKS = re.findall(r"(<!-- not run by the test: [^>]+ -->\n)?```bash\n(.*?)```", TEXT, flags=re.S)
RUN = [body for skipped, body in BLOCKS if not skipped]

# What stands for the reader's own: a small model, few rows, and ports that nobody else has.
STAND_INS = {"google-bert/bert-base-uncased": "base", ":50051": ":50951", ":8080": ":50980"}
QUICK = {"finetune": ["--epochs", "1"], "distill": ["--check-rows", "8"], "bench": ["--check-rows", "8"]}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder as a reader has it: own data, and a pretrained checkpoint in place of the hub's."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(tiny_model, folder / "base")
    data = folder / "my-data"
    data.mkdir()
    rows = [
        json.dumps({"text": f"this one is {word} {i}", "label": word})
        for i in range(48)
        for word in ("good", "bad")
    ]
    (data / "train.jsonl").write_text("\n".join(rows))
    (data / "validation.jsonl").write_text("\n".join(rows[:32]))
    (suite,) = re.findall(r"`--suite (\S+?)`:.*?```yaml\n(.*?)```", TEXT, flags=re.S)
    (folder / suite[0]).write_text(suite[1])
    return folder


@pytest.fixture(scope="module")
def background() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.terminate()
        process.communicate(timeout=30)
        assert process.returncode == 0


@pytest.mark.parametrize("block", RUN, ids=[body.split("\n")[0][:40] for body in RUN])
def test_command_blocks_run_as_they_stand(
    block: str, reader: Path, background: list[subprocess.Popen[str]]
) -> None:
    for line in block.replace("\\\n", " ").strip().splitlines():
        _run(line, reader, background)


def _run(line: str, folder: Path, background: list[subprocess.Popen[str]]) -> None:
    for theirs, ours in STAND_INS.items():
        line = line.replace(theirs, ours)
    words = line.split()
    if words[0] == "curl" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    line += " " + " ".join(QUICK.get(words[1], []))
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TEACHER_GRPC_PORT": "50951",
        "TEACHER_HTTP_PORT": "50980",
        "OMP_NUM_THREADS": "1",
    }
    if words[:2] == ["teacher-server", "serve"]:
        server = subprocess.Popen(
            f"exec {line}",
            shell=True,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        background.append(server)
        assert server.stdout is not None
        assert server.stdout.readline().startswith("ready ")
        return
    done = subprocess.run(
        line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


def test_most_blocks_are_run() -> None:
    assert len(RUN) >= 5


def test_settings_tables_are_current() -> None:
    assert written(TEXT) == TEXT, "run `make docs`"


def test_the_tree_names_what_is_there() -> None:
    (tree,) = re.findall(r"```tree\n(.*?)```", TEXT, flags=re.S)
    folders: list[str] = []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        for name in line.split("  ")[depth].split():
            path = ROOT.joinpath(*folders[:depth], name)
            assert path.exists(), f"{path.relative_to(ROOT)} is in the README's tree only"
        folders[depth:] = [line.split()[0]]


def test_local_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http|#)([^)]+)\)", TEXT):
        assert (ROOT / target).exists(), target


def test_metrics_table_is_current() -> None:
    text = metrics_table.README.read_text()
    assert metrics_table.written(text) == text, "run `make docs`"
