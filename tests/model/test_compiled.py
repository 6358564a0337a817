"""torch.compile: the plain values, from a bounded number of graphs, all made before anybody asks.

No GPU is at hand: the flash kernel's documented meaning is registered for CPUs in its place, all around it is
real; CUDA graphs are only refused. "eager" as the compiler's back end traces and guards as any other.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import processes
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import StartServer
from tiny_models import MAX_LENGTH
from torch import Tensor

from teacher_api.messages import Instance, Want
from teacher_server.model import Model, ModelError, runtimes
from teacher_server.model import model as models
from teacher_server.model.attention import Rows, varlen
from teacher_server.model.packed import BIASED, ENCODERS

COUNTS = (1, 3, 2, 1, 9, 5, 33, 17, 2)  # of texts in one batch
Graphs = list[int]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No compiled code from before, and afterwards nothing that would hold for other tests."""
    torch.compiler.reset()
    yield
    torch.compiler.set_stance("default")
    torch.compiler.reset()
    torch.set_num_threads(1)


@pytest.fixture
def traced() -> Iterator[Graphs]:
    """In place of a compiler: for each graph made, how often it ran."""
    runs: Graphs = []

    def backend(graph: Any, inputs: Any, **_: Any) -> Callable[..., Any]:
        number = len(runs)
        runs.append(0)

        def run(*args: Any) -> Any:
            runs[number] += 1
            return graph(*args)

        return run

    torch.compiler.set_default_backend(backend)
    yield runs
    torch.compiler.set_default_backend(None)


@pytest.fixture
def flash_on_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The BERT family runs as on CUDA in half precision."""
    library = torch.library.Library("torch_attn", "FRAGMENT")
    torch.library.register_kernel("torch_attn::_varlen_attn", "cpu", _by_the_book, lib=library)

    def as_on_cuda(network: Any) -> runtimes.Runtime:
        fits = network.config.model_type in ENCODERS.keys() - BIASED
        return runtimes.Packed(network, varlen) if fits else runtimes.Padded(network)

    monkeypatch.setattr(models, "choose_runtime", as_on_cuda)
    monkeypatch.setattr(models, "prepack", lambda *_: None)
    yield
    library._destroy()  # type: ignore[no-untyped-call]


def _by_the_book(query: Tensor, key: Tensor, value: Tensor, ends: Tensor, *others: Any) -> Any:
    key_ends, longest, longest_key, *_ = others
    for places, most, states in ((ends, longest, query), (key_ends, longest_key, key)):
        assert places[0] == 0 and places[-1] <= len(states) and places.dtype == torch.int32
        assert most >= places.diff().max() and places.diff().min() >= 0
    if not torch.equal(ends, key_ends):  # one token of each instance
        assert longest == 1 and ends.tolist() == [*range(len(key_ends))]
    else:
        assert longest == longest_key
    mixed = torch.zeros_like(query)
    for (start, end), (first, last) in zip(pairwise(ends), pairwise(key_ends), strict=True):
        q, k, v = (one.transpose(0, 1) for one in (query[start:end], key[first:last], value[first:last]))
        mixed[start:end] = ((q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(0, 1)
    return mixed, query.new_empty(query.shape[1], len(query)), torch.zeros(2, dtype=torch.uint64)


@pytest.mark.parametrize(
    ("kind", "runtime"),
    [
        ("bert", "varlen"),
        ("roberta", "varlen"),
        ("albert", "padded"),
        ("mpnet", "padded"),
    ],
)
def test_few_graphs_serve_all_sizes(
    kind: str, runtime: str, tiny: Any, plain: Any, flash_on_cpu: None, traced: Graphs
) -> None:
    model = _warm(tiny(kind))
    assert model.description.runtime == f"{runtime}+compiled"
    made, before = len(traced), sum(traced)
    assert made <= 3
    with torch.compiler.set_stance("fail_on_recompile"):
        _check(model, plain(tiny(kind)))
        assert (len(traced), sum(traced)) == (made, before + len(COUNTS))
        _check_attentions(model, plain(tiny(kind)))  # uncompiled
    model._threads = torch.get_num_threads() + 1  # compiled code is for one number: this would need more
    model.run(model.encode([Instance("the cat")]), [Want()])
    assert (len(traced), sum(traced)) == (made, before + len(COUNTS))


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")
def test_compiled_for_real_it_answers_several_threads(
    tiny: Any, plain: Any, flash_on_cpu: None, tmp_path: Path
) -> None:
    folder = _one_layer(tiny("bert"), tmp_path)
    model = _warm(folder)
    torch.compiler.set_stance("fail_on_recompile")  # holds in every thread
    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(_check, model, plain(folder), 1) for _ in range(4)]:
            done.result()


def test_a_server_compiles_before_it_is_ready(
    tiny: Any, plain: Any, new_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "READY_SECONDS", 150)  # on a busy machine
    folder = _one_layer(tiny("albert"), tmp_path)
    flags = ("--compile", "default", "--max-length", str(MAX_LENGTH), "--cache-entries", "0")
    running, alone = new_server(*flags, model=folder), plain(folder)
    assert httpx.get(f"{running.url}/v1/describe").json()["runtime"] == "padded+compiled"
    assert '"padded+compiled"' in running.log.read_text()
    for texts in (["the cat asks"], ["a dog", "", "the teacher must know what it asks"]):
        asked = {"instances": [{"text": text} for text in texts]}
        answer = httpx.post(f"{running.url}/v1/predict", json=asked, timeout=60).json()
        for text, one in zip(texts, answer["answers"], strict=True):
            np.testing.assert_allclose(one["outputs"]["logits"], alone(text)[0], atol=1e-5)


def test_a_server_without_a_compiler_says_so_and_ends(tiny: Any, tmp_path: Path) -> None:
    folder = _one_layer(tiny("albert"), tmp_path)
    command = [sys.executable, "-m", "teacher_server", "serve", "--model", str(folder)]
    command += ["--compile", "default", "--max-length", "32", "--grpc-port", "0", "--http-port", "0"]
    env = os.environ | {"CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "kept")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False, env=env)
    assert (done.returncode, done.stdout) == (2, "")
    *_, last = done.stderr.splitlines()
    assert last.startswith("teacher-server: compile 'default' failed: InductorError: InvalidCxxCompiler: ")
    assert "take --compile off" in last and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("kind", "mode", "told"),
    [
        ("bert", "default", "compile 'default' is not for batches packed on a CPU: .*; take --compile off"),
        (
            "albert",
            "reduce-overhead",
            "compile 'reduce-overhead' .* need CUDA, not cpu: take --compile default",
        ),
    ],
)
def test_what_a_cpu_is_not_for_is_refused(kind: str, mode: Any, told: str, tiny: Any) -> None:
    with pytest.raises(ModelError, match=told):
        Model.load(str(tiny(kind)), max_length=MAX_LENGTH, compiled=mode)


@given(st.lists(st.integers(1, 512), min_size=1, max_size=300).map(sorted))
def test_made_up_instances_fill_few_sizes(lengths: list[int]) -> None:
    """As the kernel wants them: none longer than the longest, every token in one; each starts at a token."""
    rows, given = Rows.of(lengths, torch.device("cpu"), few=True), Rows.of(lengths, torch.device("cpu"))
    assert torch.equal(rows.ends[: len(given.ends)], given.ends)
    assert rows.ends[-1] == rows.size > rows.tokens == given.tokens
    assert rows.size <= max(given.tokens * 9 / 8 + 1, given.tokens + 8)
    assert rows.ends.diff().min() >= 0 and rows.ends.diff().max() <= rows.longest
    assert (rows.ends[:-1] < rows.size).all()
    assert len(rows.ends).bit_count() == rows.longest.bit_count() == 1


def _warm(folder: Path) -> Model:
    model = Model.load(str(folder), max_length=MAX_LENGTH, compiled="default")
    model.warm_up()
    return model


def _one_layer(folder: Path, to: Path) -> Path:
    """Compiling takes seconds a layer."""
    copied = shutil.copytree(folder, to / "one-layer")
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    return copied


def _check(model: Model, alone: Any, layer: int = 3) -> None:
    """Within 1e-5 of the largest value there, or of 1; every other batch with hidden states."""
    for turn, count in enumerate(COUNTS):
        texts = ["the cat asks " * ((3 * turn + place) % 11) for place in range(count)]
        want = Want(layers=(0, layer), pooling="none") if turn % 2 else Want()
        for text, answer in zip(
            texts, model.run(model.encode([*map(Instance, texts)]), [want] * count), strict=True
        ):
            logits, layers = alone(text)
            _close(answer.logits, logits.numpy())
            for number, states in answer.hidden.items():
                _close(states, layers[number].numpy())


def _check_attentions(model: Model, alone: Any) -> None:
    texts = ["the cat asks", "a dog", ""]
    answers = model.run(model.encode([*map(Instance, texts)]), [Want(attentions=(2,))] * 3)
    for text, answer in zip(texts, answers, strict=True):
        _close(answer.attentions[2], alone.attentions(text)[1].numpy())


def _close(got: Any, expected: Any) -> None:
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-5 * max(1, np.abs(expected).max())
