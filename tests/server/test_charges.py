"""What a key is charged, over both faces: budgets, operations, usage and the charge log; with a Redis."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from faces import grpc_error
from processes import RedisProcess, ServerProcess, redis_missing, start_server

from teacher_api.errors import (
    BudgetSpentError,
    NotReadyError,
    OverloadedError,
    PermissionDeniedError,
    error_from_proto,
)
from teacher_api.messages import Instance, Usage, Want, request_to_proto, usage_from_proto
from teacher_api.v1 import teacher_pb2 as pb
from teacher_api.v1.teacher_pb2_grpc import TeacherServiceStub
from teacher_server import auth
from teacher_server.auth import KeyFile, Limits

Charged = list[int]


@dataclass
class Guarded:
    """A server with keys, their accounts in a Redis, and a charge log."""

    server: ServerProcess
    redis: RedisProcess
    keys: Path
    log: Path
    secrets: dict[str, str] = field(default_factory=dict)

    def key(self, name: str, *scopes: Any, **limits: Any) -> str:
        content = auth.read(self.keys)
        content, self.secrets[name] = auth.create(content, name, scopes or ("predict",), Limits(**limits))
        auth.write(self.keys, content)
        return name

    def header(self, name: str, operation: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.secrets[name]}", "operation-id": operation}

    def charges(self, name: str) -> list[dict[str, Any]]:
        return [one for one in map(json.loads, self.log.read_text().splitlines()) if one["key"] == name]

    def metric(self, name: str) -> float | None:
        """A series of /metrics; None if there is none."""
        text = httpx.get(f"{self.server.url}/metrics", timeout=30).text
        return next(
            (float(line.split(" ")[-1]) for line in text.splitlines() if line.startswith(f"{name} ")), None
        )

    def charged(self, key: str) -> list[float | None]:
        """What /metrics says that a key was charged: queries, units, dollars."""
        return [
            self.metric(f'teacher_charged_{what}_total{{key="{key}"}}')
            for what in ("queries", "units", "usd")
        ]


class GrpcFace:
    def __init__(self, guarded: Guarded) -> None:
        self.guarded = guarded

    def ask(self, name: str, *texts: str, operation: str = "") -> Charged:
        metadata = tuple(self.guarded.header(name, operation).items())
        request = request_to_proto([Instance(text) for text in texts], Want())
        with grpc.insecure_channel(self.guarded.server.grpc) as channel:
            try:
                answers = TeacherServiceStub(channel).Predict(request, metadata=metadata, timeout=30).answers
            except grpc.RpcError as error:
                raise grpc_error(error) from None
        return [answer.charged for answer in answers]

    def usage(self, name: str) -> Usage:
        metadata = tuple(self.guarded.header(name, "").items())
        with grpc.insecure_channel(self.guarded.server.grpc) as channel:
            found = TeacherServiceStub(channel).GetUsage(pb.GetUsageRequest(), metadata=metadata, timeout=30)
        return usage_from_proto(found)


class HttpFace:
    def __init__(self, guarded: Guarded) -> None:
        self.guarded = guarded

    def ask(self, name: str, *texts: str, operation: str = "") -> Charged:
        answer = httpx.post(
            f"{self.guarded.server.url}/v1/predict",
            json={"instances": [{"text": text} for text in texts]},
            headers=self.guarded.header(name, operation),
            timeout=30,
        )
        if not answer.is_success:
            assert (
                int(answer.headers.get("retry-after", 0)) * 1000 >= answer.json()["error"]["retry_after_ms"]
            )
            raise error_from_proto(pb.Error(**answer.json()["error"]))
        return [one["charged"] for one in answer.json()["answers"]]

    def usage(self, name: str) -> Usage:
        found = httpx.get(
            f"{self.guarded.server.url}/v1/usage", headers=self.guarded.header(name, ""), timeout=30
        ).json()
        return Usage(**found | {"keys": tuple(Usage(**one) for one in found["keys"])})


@pytest.fixture(scope="module")
def guarded(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    if redis_missing():
        pytest.skip("needs a redis-server: apt-get install redis-server")
    folder = tmp_path_factory.mktemp("charges")
    redis = RedisProcess()
    auth.write(folder / "keys", KeyFile())
    flags = ("--keys", folder / "keys", "--budget", redis.url, "--charge-log", folder / "charges")
    book = ("--price-book", "aws-comprehend", "--price-feature", "sentiment")
    running = start_server(tiny_model, folder / "log", *map(str, flags), *book, "--metrics-open")
    yield Guarded(running, redis, folder / "keys", folder / "charges")
    redis.kill()
    assert running.stop() == 0


@pytest.fixture(params=[GrpcFace, HttpFace], ids=["grpc", "http"])
def face(request: pytest.FixtureRequest, guarded: Guarded) -> Any:
    return request.param(guarded)


def test_a_budget_is_spent_refunded_and_seen(face: Any, guarded: Guarded) -> None:
    name = guarded.key(f"spends-{type(face).__name__.lower()}", queries=3)
    assert face.ask(name, f"{name} 1", f"{name} 2") == [1, 1]
    assert face.ask(name, f"{name} 2", f"{name} 1") == [0, 0]  # a cache hit is free
    with pytest.raises(BudgetSpentError) as refused:
        face.ask(name, f"{name} 3", f"{name} 4")
    assert (refused.value.field, refused.value.value, refused.value.limit) == ("queries", "4", "3 a month")
    assert 0 < refused.value.retry_after_ms <= 31 * 86_400_000
    assert face.ask(name, f"{name} 3", f"{name} 3", f"{name} 1") == [1, 0, 0]
    usage = face.usage(name)
    assert (usage.key, usage.queries, usage.remaining) == (name, 3, 0)
    assert (usage.asked, usage.charged, usage.joined, usage.cached) == (7, 3, 1, 3)
    assert face.ask(name, f"{name} 1") == [0]  # what is known is told even then


def test_an_operation_asked_again_is_charged_once_and_told_so(face: Any, guarded: Guarded) -> None:
    name = guarded.key(f"retries-{type(face).__name__.lower()}", queries=10)
    texts = [f"{name} {number}" for number in range(3)]
    assert face.ask(name, *texts[:2], operation="run 1") == [1, 1]
    assert face.ask(name, *reversed(texts), operation="run 1") == [1, 1, 1]
    assert face.ask(name, *texts, operation="run 1") == [1, 1, 1]
    assert face.ask(name, *texts, operation="run 2") == [0, 0, 0]
    assert face.usage(name).queries == guarded.charged(name)[0] == 3
    lines = guarded.charges(name)
    assert [(line["operation"], line["queries"]) for line in lines] == [("run 1", 2), ("run 1", 1)]


def test_nobody_sees_anothers_account_but_an_admin(face: Any, guarded: Guarded) -> None:
    kind = type(face).__name__.lower()
    one, other = (guarded.key(f"{who}-{kind}") for who in ("one", "other"))
    admin = guarded.key(f"admin-{kind}", "admin")
    face.ask(one, f"{one} text", operation="same")
    assert face.ask(other, f"{one} text", operation="same") == [0]  # its operations are its own
    assert face.usage(other).queries == 0
    assert face.usage(one).keys == face.usage(other).keys == ()
    seen = {usage.key: usage.queries for usage in face.usage(admin).keys}
    assert (seen[one], seen[other]) == (1, 0)
    with pytest.raises(PermissionDeniedError):
        face.ask(admin, "a")


def test_units_and_dollars_are_those_of_the_log(face: Any, guarded: Guarded) -> None:
    name = guarded.key(f"pays-{type(face).__name__.lower()}", usd="0.001", per="day")
    assert guarded.charged(name) == [0, 0, 0]  # before the first charge, or Prometheus would not see it grow
    face.ask(name, f"{name} " + "x" * 640, f"{name} short")  # 7 or 8 units of 100, and 3
    usage = face.usage(name)
    assert usage.units in (10, 11)
    (line,) = guarded.charges(name)
    assert (line["queries"], line["units"], line["usd"]) == (2, usage.units, usage.usd)
    assert float(usage.remaining_usd or "") == pytest.approx(0.001 - float(usage.usd))
    assert float(usage.usd) == pytest.approx(0.0001 * usage.units)
    assert guarded.charged(name) == pytest.approx([2, usage.units, float(usage.usd)])
    assert "xxx" not in guarded.log.read_text()


def test_too_fast_is_told_when_to_come_back(face: Any, guarded: Guarded) -> None:
    name = guarded.key(f"fast-{type(face).__name__.lower()}", texts_per_second=0.01)
    face.ask(name, "a")
    with pytest.raises(OverloadedError) as refused:
        face.ask(name, "a")
    assert refused.value.limit == "0.01"
    assert 60_000 < refused.value.retry_after_ms <= 100_000


def test_zz_without_its_redis_nobody_is_answered(guarded: Guarded) -> None:
    """The last one here: it ends the Redis."""
    name = guarded.key("late")
    assert HttpFace(guarded).ask(name, "late") == [1]
    assert guarded.metric("teacher_budget_up") == 1
    guarded.redis.kill()
    for face in (GrpcFace(guarded), HttpFace(guarded)):
        for text in ("late", "later"):
            with pytest.raises(NotReadyError, match="nothing is asked"):
                face.ask(name, text)
    assert guarded.metric("teacher_budget_up") == 0
    assert httpx.get(f"{guarded.server.url}/readyz").status_code == 200
