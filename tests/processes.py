"""Real processes for tests: a teacher server and a redis-server, each on free ports, always stopped."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

READY_SECONDS = 60
STOP_SECONDS = 20


@dataclass
class ServerProcess:
    """A running teacher server.

    Attributes:
        grpc: host:port of gRPC.
        url: base URL of HTTP.
        log: the file with its stderr.
    """

    process: subprocess.Popen[str]
    grpc: str
    url: str
    fingerprint: str
    log: Path

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends the signal and returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.communicate(timeout=STOP_SECONDS)
        return self.process.returncode

    def kill(self) -> None:
        if self.process.stdout is not None and not self.process.stdout.closed:
            self.process.kill()
            self.process.communicate(timeout=STOP_SECONDS)


StartServer = Callable[..., ServerProcess]


def start_server(
    model: Path,
    log: Path,
    *flags: str,
    env: dict[str, str] | None = None,
    script: Path | None = None,
    free_ports: bool = True,
) -> ServerProcess:
    """`teacher-server serve --model …`, ready; `script` replaces `-m teacher_server`, to put faults in."""
    command = [str(script)] if script else ["-m", "teacher_server"]
    ports = ["--grpc-port", "0", "--http-port", "0"] if free_ports else []
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            [sys.executable, *command, "serve", "--model", str(model), *ports, "--threads", "1", *flags],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "TEACHER_NOTICE_SECONDS": "0"} | (env or {}),
        )
    ports_of = dict(part.split("=", 1) for part in _ready_line(process, log).split()[1:])
    return ServerProcess(
        process, ports_of["grpc"], f"http://{ports_of['http']}", ports_of["fingerprint"], log
    )


def _ready_line(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None
    stuck = threading.Timer(READY_SECONDS, process.kill)
    stuck.start()
    try:
        line = process.stdout.readline()
    finally:
        stuck.cancel()
    assert line.startswith("ready "), f"the server did not start:\n{log.read_text()}"
    return line


class RedisProcess:
    """A redis-server without persistence, that can be killed, frozen and started again."""

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self._options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = [
            "redis-server",
            "--port",
            str(self.port),
            "--save",
            "",
            "--appendonly",
            "no",
            *self._options,
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_port(self.port)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(STOP_SECONDS)
            self.process = None


def redis_missing() -> bool:
    return shutil.which("redis-server") is None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int, seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < until, f"nothing listens on port {port}"
            time.sleep(0.02)
