"""deploy/monitoring on a real Prometheus that scrapes a real server: every panel shows something."""

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import yaml
from processes import ServerProcess, start_server
from prometheus import MONITORING, Prometheus, prometheus_missing, scraping

from teacher_api.messages import Instance, Want, request_to_proto
from teacher_api.v1 import teacher_pb2 as pb
from teacher_api.v1.teacher_pb2_grpc import TeacherServiceStub

FAULTY = Path(__file__).parents[1] / "server/faulty_server.py"
DASHBOARD = json.loads((MONITORING / "grafana/dashboard.json").read_text())
RULES = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = {
    f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]
}
VARIABLES = {"$instance": ".*", "$__rate_interval": "1m", "$__range": "1m"}

PRICED = ("--price-book", "aws-comprehend")  # three units a text at least, and none of them free

pytestmark = pytest.mark.skipif(
    prometheus_missing(), reason="needs Prometheus and promtool: apt-get install prometheus"
)


@pytest.fixture(scope="module")
def prometheus(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Scrapes a server before, between and after traffic of every kind."""
    folder = tmp_path_factory.mktemp("monitoring")
    env = {"FAULTY_RUNS": str(folder / "runs")}
    server = start_server(tiny_model, folder / "log", "--queue-texts", "128", *PRICED, env=env, script=FAULTY)
    try:
        with scraping([server.url.removeprefix("http://")], folder) as running:
            running.wait('up{job="teacher"} == 1')
            asyncio.run(traffic(server))
            running.wait('teacher_texts_total{outcome="failed"} > 0')
            running.wait("rate(teacher_expired_texts_total[1m]) > 0")
            yield running
    finally:
        server.kill()


async def traffic(server: ServerProcess) -> None:
    """Answers, hits, a stream, and each failure that a panel shows."""
    for _ in range(2):
        await ask(server, *[f"text {number} " + "word " * (number % 9) for number in range(100)])
    await ask(server, "nan fails alone", "beside it")
    await ask(server, "raise RuntimeError")
    await ask(server, fingerprint="f" * 64)
    busy = asyncio.create_task(ask(server, "slow 2.0 keeps the model"))
    await asyncio.sleep(0.5)
    late = [ask(server, f"late {number}", timeout_ms=100) for number in range(3)]
    too_many = [ask(server, *[f"{burst} {number}" for number in range(100)]) for burst in "ab"]
    await asyncio.gather(busy, *late, *too_many)
    await stream(server)


async def ask(server: ServerProcess, *texts: str, **more: Any) -> None:
    body = {"instances": [{"text": text} for text in texts or ("a",)], **more}
    async with httpx.AsyncClient(timeout=20) as client:
        await client.post(f"{server.url}/v1/predict", json=body)


async def stream(server: ServerProcess) -> None:
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        stub = TeacherServiceStub(channel)
        question = request_to_proto([Instance("over gRPC")], Want())
        await stub.Predict(question, timeout=20)
        requests = iter([pb.StreamPredictRequest(id=1, question=question)])
        assert [answer.id async for answer in stub.StreamPredict(requests, timeout=20)] == [1]


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_of_every_panel_has_data(prometheus: Prometheus, query: str) -> None:
    expression = QUERIES[query].removesuffix(" or vector(0)")
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    prometheus.wait(expression)


SEEN = {
    "a text failed": 'teacher_texts_total{outcome="failed"} > 0',
    "texts were cached": 'teacher_texts_total{outcome="cached"} >= 100',
    "texts expired": "teacher_expired_texts_total > 0",
    "requests were refused": 'teacher_refusals_total{reason="overloaded"} > 0',
    "a fingerprint did not match": 'teacher_refusals_total{reason="fingerprint_mismatch"} == 1',
    "a handler failed": 'teacher_request_duration_seconds_count{method="/v1/predict", code="500"} == 1',
    "a stream ended": 'teacher_request_duration_seconds_count{method="StreamPredict", code="OK"} == 1',
    "what was charged is what the model ran on": (
        'sum(teacher_charged_queries_total) == sum(teacher_texts_total{outcome="charged"})'
    ),
    "each query is of three units or more": (
        "sum by (key) (teacher_charged_units_total) >= 3 * sum by (key) (teacher_charged_queries_total)"
    ),
    "dollars are the book's": "abs(teacher_charged_usd_total - 1e-4 * teacher_charged_units_total) < 1e-9",
    "the accounts can be reached": "teacher_budget_up == 1",
    "nothing waits": "teacher_requests_open + teacher_queue_texts + teacher_streams_open == 0",
}


@pytest.mark.parametrize("what", SEEN)
def test_the_numbers_are_those_of_the_traffic(prometheus: Prometheus, what: str) -> None:
    prometheus.wait(SEEN[what])


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_every_rule_reads_what_the_server_has(prometheus: Prometheus, rule: dict[str, Any]) -> None:
    (state,) = (one for one in prometheus.ask("rules")["groups"][0]["rules"] if one["name"] == rule["alert"])
    assert state["health"] in ("ok", "unknown")  # unknown: not evaluated yet
    for name in set(re.findall(r"\b(?:teacher|process)_\w+|\bup\b", rule["expr"])):
        assert prometheus.numbers(name), f"the server has no {name}"


def test_rules_fire_when_they_should() -> None:
    """alerts.test.yml: for each alert a course of things that fires it and one that does not."""
    ran = subprocess.run(
        ["promtool", "test", "rules", str(Path(__file__).with_name("alerts.test.yml"))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_rule_has_a_test_and_a_runbook() -> None:
    tests = yaml.safe_load(Path(__file__).with_name("alerts.test.yml").read_text())["tests"]
    fired = {one["alertname"] for test in tests for one in test["alert_rule_test"] if one.get("exp_alerts")}
    quiet = {
        one["alertname"] for test in tests for one in test["alert_rule_test"] if not one.get("exp_alerts")
    }
    headings = re.findall(r"^### (\w+)$", (MONITORING / "README.md").read_text(), flags=re.M)
    for rule in RULES:
        name = rule["alert"]
        assert name in fired & quiet
        assert rule["annotations"]["runbook"] == f"deploy/monitoring/README.md#{name.lower()}"
        assert name in headings
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_the_configuration_is_prometheuss_own() -> None:
    command = ["promtool", "check", "config", str(MONITORING / "prometheus.yml")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{len(RULES)} rules found" in ran.stdout


def test_the_dashboard_can_be_imported_anywhere() -> None:
    """Its only outside reference is the data source that the viewer picks; nothing overlaps."""
    (source, _) = DASHBOARD["templating"]["list"]
    assert (source["type"], source["query"]) == ("datasource", "prometheus")
    assert {panel["datasource"]["uid"] for panel in PANELS} == {"${datasource}"}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (column, line)
            for column in range(at["x"], at["x"] + at["w"])
            for line in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
