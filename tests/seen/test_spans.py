"""Spans as a collector receives them, from servers that its standard variables were set for."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from collector import Collector, collecting
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from processes import ServerProcess, StartServer, free_port, start_server

from teacher_api.messages import Instance, Want, request_to_proto
from teacher_api.v1.teacher_pb2_grpc import TeacherServiceStub

QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "100"}
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"
PARTS = ["admit", "batch", "cache", "queue"]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture(scope="module")
def traced(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, collector: Collector
) -> Iterator[ServerProcess]:
    env = QUICK | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_SERVICE_NAME": "teacher-under-test",
    }
    flags = ("--batch-tokens", "1024")  # room for texts of several requests
    running = start_server(tiny_model, tmp_path_factory.mktemp("traced") / "log", *flags, env=env)
    yield running
    assert running.stop() == 0


@pytest.fixture(autouse=True)
def empty(collector: Collector) -> None:
    collector.spans.clear()


def ask_http(server: ServerProcess, *texts: str, **headers: str) -> httpx.Response:
    body = {"instances": [{"text": text} for text in texts]}
    return httpx.post(f"{server.url}/v1/predict", json=body, headers=headers, timeout=20)


def ask_grpc(server: ServerProcess, *texts: str, **metadata: str) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        request = request_to_proto([Instance(text) for text in texts], Want())
        TeacherServiceStub(channel).Predict(request, timeout=20, metadata=list(metadata.items()))


def parts_of(collector: Collector, request: Span) -> list[Span]:
    found = [span for span in collector.spans if span.parent_span_id == request.span_id]
    return sorted(found, key=lambda span: span.name)


@pytest.mark.parametrize(
    ("ask", "name", "code"),
    [(ask_http, "http /v1/predict", "200"), (ask_grpc, "grpc Predict", "OK")],
    ids=["http", "grpc"],
)
def test_a_request_continues_its_callers_trace(
    traced: ServerProcess, collector: Collector, ask: object, name: str, code: str
) -> None:
    ask(traced, f"a span of {name}", "and another", traceparent=TRACEPARENT)  # type: ignore[operator]
    collector.wait(lambda: bool(collector.named(name)))
    (request,) = collector.named(name)
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, CALLER)
    assert request.kind == Span.SPAN_KIND_SERVER
    assert code in {attribute.value.string_value for attribute in request.attributes}
    parts = parts_of(collector, request)
    assert [part.name for part in parts] == PARTS
    assert {part.trace_id.hex() for part in parts} == {TRACE}
    for part in parts:
        assert request.start_time_unix_nano <= part.start_time_unix_nano <= part.end_time_unix_nano
        assert part.end_time_unix_nano <= request.end_time_unix_nano
    assert collector.services == {"teacher-under-test"}


def test_the_parts_say_what_was_done(traced: ServerProcess, collector: Collector) -> None:
    ask_http(traced, "known already")
    ask_http(traced, "known already", "not known yet", traceparent=TRACEPARENT)
    collector.wait(lambda: len(collector.named("http /v1/predict")) == 2)
    (request,) = (one for one in collector.named("http /v1/predict") if one.trace_id.hex() == TRACE)
    admit, batch, cache, queue = parts_of(collector, request)
    assert numbers(admit) == {"teacher.texts": 2}
    assert numbers(cache) == {"teacher.hits": 1, "teacher.misses": 1}
    assert numbers(batch)["teacher.texts"] == 1
    assert [link.span_id for link in queue.links] == [batch.span_id]
    (model,) = (one for one in collector.spans if one.parent_span_id == batch.span_id)
    assert model.name == "model"


def numbers(span: Span) -> dict[str, int]:
    return {attribute.key: attribute.value.int_value for attribute in span.attributes}


def test_a_batch_links_to_the_requests_that_it_serves(traced: ServerProcess, collector: Collector) -> None:
    """Long texts keep the model busy, so that those who come meanwhile share the next batch."""

    def shared() -> bool:
        return any(len(batch.links) > 1 for batch in collector.named("batch"))

    with httpx.Client() as client:
        for round_ in range(20):
            rush(client, traced, round_)
            collector.wait(lambda: len(collector.named("http /v1/predict")) >= 8)
            if shared():
                break
    (batch, *_) = (one for one in collector.named("batch") if len(one.links) > 1)
    requests = {one.span_id: one for one in collector.named("http /v1/predict")}
    assert {link.span_id for link in batch.links} <= requests.keys()
    assert batch.parent_span_id == batch.links[0].span_id


def rush(client: httpx.Client, server: ServerProcess, round_: int) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def ask(number: int) -> None:
        texts = [f"{round_} {number} {text} " + "long " * 100 for text in range(30)]
        assert ask_http(server, *texts).status_code == 200

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))


def test_a_refusal_is_an_error_without_its_words(traced: ServerProcess, collector: Collector) -> None:
    body = {"instances": [{"text": "a"}], "fingerprint": "marked-fingerprint"}
    told = httpx.post(f"{traced.url}/v1/predict", json=body, headers={"traceparent": TRACEPARENT})
    collector.wait(lambda: bool(collector.named("http /v1/predict")))
    (request,) = collector.named("http /v1/predict")
    assert request.status.code == Status.STATUS_CODE_ERROR
    (admit,) = parts_of(collector, request)
    assert (admit.name, admit.status.message) == ("admit", "FingerprintMismatchError")
    assert told.headers["x-request-id"] == request.span_id.hex()
    assert not any(b"marked-fingerprint" in body for body in collector.bodies)


def test_an_unsampled_caller_is_not_traced(traced: ServerProcess, collector: Collector) -> None:
    ask_http(traced, "unsampled", traceparent=f"00-{TRACE}-{CALLER}-00")
    ask_http(traced, "sampled")
    collector.wait(lambda: bool(collector.named("http /v1/predict")))
    assert TRACE not in {span.trace_id.hex() for span in collector.spans}


def test_the_standard_sampler_decides(new_server: StartServer, collector: Collector) -> None:
    env = QUICK | {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_TRACES_SAMPLER": "always_off"}
    running = new_server(env=env)
    ask_http(running, "nobody hears of this")
    assert running.stop() == 0
    assert not collector.spans


def test_a_server_without_collector_answers_and_stops(new_server: StartServer) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    running = new_server(env=env)
    assert ask_http(running, "nobody listens").status_code == 200
    assert running.stop() == 0  # within processes.STOP_SECONDS


def test_nothing_is_imported_while_nobody_asks_for_spans() -> None:
    code = "import sys, teacher_server.serving as s; s._tracer(); print(*sys.modules)"
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    loaded = {"teacher_server.spans", "opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http"}
    assert not loaded & set(ran.stdout.split())


def test_what_cannot_be_had_is_said_before_serving(tiny_model: Path) -> None:
    env = os.environ | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    }
    command = [sys.executable, "-m", "teacher_server", "serve", "--model", str(tiny_model)]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 2
    assert "OTEL_EXPORTER_OTLP_PROTOCOL = 'grpc': spans are sent as http/protobuf only" in ran.stderr


def test_log_lines_name_the_trace(new_server: StartServer) -> None:
    running = new_server("--log-level", "debug")
    answer = ask_http(running, traceparent=TRACEPARENT)
    assert running.stop() == 0  # its log is whole: a line may follow its answer
    lines = [json.loads(line) for line in running.log.read_text().splitlines()]
    (line,) = (line for line in lines if line["message"] == "answered")
    assert (line["trace_id"], line["code"]) == (TRACE, "422")
    assert line["request_id"] == answer.headers["x-request-id"]
