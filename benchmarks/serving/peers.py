"""Our server beside what else one would take, each in a virtual environment of its own, in one run.

Every peer serves the same classifier over HTTP with its documented batching, and is asked over kept
connections by callers that write their requests before the clock starts. One that cannot be installed
or started has a line that says so.
"""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import Setting, add_plain, measure, process_of, ratios_to_plain, serving
from callers import Load, ask_all

SCRIPTS = Path(__file__).parents[1] / "peers"
ROOT = Path(__file__).parents[2] / "runs" / "peers"
PINNED = ("torch==2.13.0",)
TRANSFORMERS = "transformers>=5.24,<6"
LOADS = {"32 x 1": (32, 1), "8 x 32": (8, 32)}
START_SECONDS = 300
MODEL = "classifier"


@dataclass(frozen=True)
class Peer:
    """How it is installed, started and asked.

    Attributes:
        packages: beside torch.
        command: of its bin folder, with PORT and FOLDER to be filled in.
        body: texts -> what is posted to `path`.
    """

    packages: tuple[str, ...]
    command: tuple[str, ...]
    path: str
    body: Callable[[Sequence[str]], Any]


def _texts(texts: Sequence[str]) -> Any:
    return {"texts": texts}


def _open_inference(texts: Sequence[str]) -> Any:
    return {"inputs": [{"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}]}


def _infinity(texts: Sequence[str]) -> Any:
    return {"model": MODEL, "input": texts, "raw_scores": True}


def _script(name: str) -> tuple[str, ...]:
    return ("python", str(SCRIPTS / name), "PORT")


INFINITY = (
    *("infinity_emb", "v2", "--model-id", "FOLDER", "--served-model-name", MODEL, "--port", "PORT"),
    *("--engine", "torch", "--device", "cpu", "--dtype", "float32", "--batch-size", "32"),
    *("--host", "127.0.0.1", "--no-bettertransformer", "--log-level", "error"),
)
PEERS = {
    "FastAPI loop": Peer(
        ("fastapi", "uvicorn", "uvloop", "httptools", TRANSFORMERS),
        _script("fastapi_server.py"),
        "/predict",
        _texts,
    ),
    "LitServe": Peer(("litserve", TRANSFORMERS), _script("litserve_server.py"), "/predict", _texts),
    "infinity": Peer(("infinity-emb[torch,server]",), INFINITY, "/classify", _infinity),
    "MLServer": Peer(
        ("mlserver", TRANSFORMERS),
        ("mlserver", "start", "SETTINGS"),
        f"/v2/models/{MODEL}/infer",
        _open_inference,
    ),
    "Ray Serve": Peer(("ray[serve]", TRANSFORMERS), _script("ray_server.py"), "/predict", _texts),
}


def run(setting: Setting) -> dict[str, dict[str, Any]]:
    """All that could be started, interleaved; only one of them works at a time."""
    failed: dict[str, dict[str, Any]] = {}
    runs: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        add_plain(runs, setting.folder, stack)
        callers = stack.enter_context(process_of(passive=False))
        server = stack.enter_context(serving(setting.folder, setting.flags))
        for shown, (count, size) in LOADS.items():
            asking = partial(callers.submit, ask_all, server.grpc, Load(count, size))
            runs[f"ours, {shown}"] = lambda texts, asking=asking: asking(texts).result()
        for name, peer in PEERS.items():
            try:
                port = stack.enter_context(_served(name, peer, setting.folder))
                callers.submit(post_all, port, name, 1, 4, setting.sentences[-4:]).result()
            except (OSError, RuntimeError, subprocess.SubprocessError, ExceptionGroup) as error:
                failed[name] = {"failed": repr(error)[:200]}
                continue
            for shown, (count, size) in LOADS.items():
                asking = partial(callers.submit, post_all, port, name, count, size)
                runs[f"{name}, {shown}"] = lambda texts, asking=asking: asking(texts).result()
        return ratios_to_plain(measure(runs, setting)) | failed


@contextlib.contextmanager
def _served(name: str, peer: Peer, folder: str) -> Iterator[int]:
    """The port of a running peer, installed first if it is not.

    Raises:
        SubprocessError: it could not be installed.
        RuntimeError: it did not start; names its log.
    """
    home = ROOT / name.split(maxsplit=1)[0].lower()
    _install(home, peer.packages)
    port = _free_port()
    settings = _mlserver_settings(home, port)
    words = {"PORT": str(port), "FOLDER": folder, "SETTINGS": str(settings)}
    command = [words.get(word, word) for word in peer.command]
    own = {"CLASSIFIER": folder, "PYTHONPATH": str(SCRIPTS), "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    own["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "60"  # of its start: 5 s are not enough here
    log = home / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [home / "bin" / command[0], *command[1:]],
            env=os.environ | own | {"PATH": f"{home / 'bin'}:{os.environ['PATH']}"},
            cwd=home,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait(process, port, log)
        yield port
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)  # whatever it has left running


def _install(home: Path, packages: Sequence[str]) -> None:
    if (home / ".installed").exists():
        return
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    pins = home / "constraints.txt"
    pins.write_text("\n".join(PINNED) + "\n")
    pip = [home / "bin" / "pip", "install", "--quiet", "--constraint", pins, *PINNED, *packages]
    subprocess.run(pip, check=True)
    (home / ".installed").touch()


def _mlserver_settings(home: Path, port: int) -> Path:
    """Its folder of settings: adaptive batching, and the model in the server's own process."""
    folder = home / "settings"
    folder.mkdir(exist_ok=True)
    server = {
        "http_port": port,
        "grpc_port": _free_port(),
        "metrics_port": _free_port(),
        "parallel_workers": 0,
    }
    (folder / "settings.json").write_text(json.dumps(server | {"host": "127.0.0.1", "debug": False}))
    model = {"name": MODEL, "implementation": "mlserver_model.Served", "max_batch_size": 32}
    (folder / "model-settings.json").write_text(json.dumps(model | {"max_batch_time": 0.005}))
    return folder


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            time.sleep(5)  # some listen before they have loaded
            return
        time.sleep(0.2)
    raise RuntimeError(f"did not start, see runs/{log.relative_to(ROOT.parent)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def post_all(port: int, name: str, callers: int, size: int, texts: Sequence[str]) -> float:
    """Seconds that so many callers take who post `size` texts at a time, each after its last answer."""
    import uvloop  # noqa: PLC0415

    return uvloop.run(_post_all(port, PEERS[name], callers, size, texts))


async def _post_all(port: int, peer: Peer, callers: int, size: int, texts: Sequence[str]) -> float:
    groups = (texts[start : start + size] for start in range(0, len(texts), size))
    messages = iter([_message(peer.path, json.dumps(peer.body(group)).encode()) for group in groups])
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_caller(port, messages)) for _ in range(callers)]
    seconds = time.perf_counter() - started
    assert sum(len(task.result()) for task in tasks) == -(-len(texts) // size)
    return seconds


def _message(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def _caller(port: int, messages: Iterator[bytes]) -> list[bytes]:
    """Over one connection, by hand: a client library would cost as much as some of the servers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = []
    for message in messages:
        writer.write(message)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        answers.append(await _body(reader, head))
        assert b" 200 " in head.split(b"\r\n")[0], answers[-1][:200]
    writer.close()
    return answers


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """Of a length that the head says, or in chunks, as Ray Serve sends it."""
    if b"transfer-encoding: chunked" not in head:
        return await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return body
