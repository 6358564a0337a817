"""No text, key or password that a server is told leaves it by log, metrics or spans, whatever goes wrong."""

import contextlib
import json
import signal
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from collector import Collector, collecting
from processes import ServerProcess, free_port, start_server

from teacher_api.errors import TeacherError
from teacher_api.messages import Instance, Want, request_to_proto
from teacher_api.v1.teacher_pb2_grpc import TeacherServiceStub

FAULTY = Path(__file__).parents[1] / "server/faulty_server.py"
SECRET = "the-inside-of-the-server"  # what the faults inside say
MARK = "marked"  # in all that a caller sends, and in the cache's password

TEXTS = [
    "marked plainly",
    "fail marked",
    "memory marked",
    "nan marked",
    "raise ValueError",
    "raise asyncio",
    "raise InvalidRequestError",
]
BODIES = [
    b'{"instances": [{"text": "marked"',
    b'{"instances": [{"text": "marked \\ud800"}]}',
    b'{"instances": [{"text": "a", "marked": 1}]}',
    b'{"instances": [{"text": 1, "text_pair": "marked"}], "timeout_ms": "marked"}',
    b'{"instances": [{"text": "a"}], "fingerprint": "marked"}',
    b"marked " * 200_000,
]
HEADERS = {
    "authorization": "Bearer marked-key",
    "traceparent": "00-marked",
    "tracestate": "marked=marked",
    "baggage": "text=marked",
    "user-agent": "marked",
}


@pytest.fixture(scope="module")
def told(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """All that a server has said of a caller who sends nothing but marked things, and its log alone."""
    folder = tmp_path_factory.mktemp("told")
    cache = f"redis://:marked-password@127.0.0.1:{free_port()}/0"
    with collecting() as collector:
        env = {"FAULTY_RUNS": str(folder / "runs"), "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        flags = ("--log-level", "debug", "--message-mib", "1", "--cache", cache)
        running = start_server(tiny_model, folder / "log", *flags, script=FAULTY, env=env)
        over_http(running)
        over_grpc(running)
        metrics = httpx.get(f"{running.url}/metrics").text
        running.process.send_signal(signal.SIGTERM)
        output, _ = running.process.communicate(timeout=60)
        assert collector.spans
        log = running.log.read_text()
        return f"{log}{output}{metrics}{sent(collector)}", log


def lines_of(log: str) -> list[dict[str, Any]]:
    """Without the progress bar, which faulty_server.py cannot hide in time."""
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


def sent(collector: Collector) -> str:
    return "".join(body.decode("latin-1") for body in collector.bodies)


def over_http(server: ServerProcess) -> None:
    """A connection for each: a server closes the one on which a handler failed."""
    url = f"{server.url}/v1/predict"
    for text in TEXTS:
        body = {"instances": [{"text": text, "text_pair": MARK}]}
        httpx.post(url, json=body, headers=HEADERS, timeout=20)
    for content in BODIES:
        typed = HEADERS | {"content-type": "application/json"}
        httpx.post(url, content=content, headers=typed, timeout=20)
    for path in ("/marked", "/v1/predict?text=marked", "/?key=marked", "/v1/describe?key=marked"):
        httpx.get(server.url + path, headers=HEADERS, timeout=20)
    with contextlib.suppress(httpx.TimeoutException):  # a caller who leaves
        slow = {"instances": [{"text": "slow 1.0 marked"}]}
        httpx.post(url, json=slow, headers=HEADERS, timeout=0.3)


def over_grpc(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        predict = TeacherServiceStub(channel).Predict
        metadata = [item for item in HEADERS.items() if item[0] != "user-agent"]
        for text in TEXTS:
            question = request_to_proto([Instance(text, MARK)], Want(), fingerprint="")
            with contextlib.suppress(grpc.RpcError, TeacherError):
                predict(question, timeout=20, metadata=metadata)
        raw = channel.unary_unary("/teacher_api.v1.TeacherService/Predict")
        with contextlib.suppress(grpc.RpcError):
            raw(b"\x0amarked", timeout=20, metadata=metadata)


def test_nothing_that_was_told_is_told_on(told: tuple[str, str]) -> None:
    everything, log = told
    lines = lines_of(log)
    assert {"RuntimeError", "MemoryError", "ValueError"} <= {line.get("exception") for line in lines}
    assert any(line["message"].startswith("cache failed") for line in lines)
    leaks = [line for line in everything.splitlines() if MARK in line or SECRET in line]
    assert not leaks


def test_each_failure_names_its_request(told: tuple[str, str]) -> None:
    lines = lines_of(told[1])
    answered = {line["request_id"] for line in lines if line["message"] == "answered"}
    failures = [line for line in lines if line["level"] == "error"]
    assert failures
    for line in failures:
        assert line["request_id"] in answered, line
