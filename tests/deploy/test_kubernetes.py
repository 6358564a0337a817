"""deploy/kubernetes.yml: what it sets is what the server takes, and the names in it meet."""

from typing import Any

import pytest
import yaml
from deployment import DOCKERFILES, REPOSITORY, application, environment

from student_trainer.teachers import connect
from teacher_server.settings import load

FILE = (REPOSITORY / "deploy/kubernetes.yml").read_text()
OBJECTS = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(FILE)}


def pod(deployment: str) -> dict[str, Any]:
    spec: dict[str, Any] = OBJECTS["Deployment", deployment]["spec"]["template"]["spec"]
    return spec


def test_the_server_takes_what_is_set_and_has_time_to_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    (container,) = pod("teacher")["containers"]
    variables = environment(DOCKERFILES[0]) | {one["name"]: one["value"] for one in container["env"]}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = load([])
    assert settings.notice_seconds == 10
    longest = settings.notice_seconds + settings.drain_seconds
    assert pod("teacher")["terminationGracePeriodSeconds"] >= longest + 10
    assert [one["containerPort"] for one in container["ports"]] == [settings.grpc_port, settings.http_port]
    assert settings.host == "0.0.0.0"


async def test_the_name_is_headless_and_the_trainers() -> None:
    service = OBJECTS["Service", "teachers"]["spec"]
    assert service["clusterIP"] == "None"
    assert service["selector"] == OBJECTS["Deployment", "teacher"]["spec"]["template"]["metadata"]["labels"]
    (port,) = service["ports"]
    address = f"grpc://teachers:{port['port']}"
    assert address in FILE
    await connect(address).close()


def test_the_cache_is_the_service_that_is_named() -> None:
    (container,) = pod("teacher")["containers"]
    (cache,) = (one["value"] for one in container["env"] if one["name"] == "TEACHER_CACHE")
    (port,) = OBJECTS["Service", "answers"]["spec"]["ports"]
    assert cache == f"redis://answers:{port['port']}/0"
    (redis,) = pod("answers")["containers"]
    assert redis["image"] == application("docker-compose.yml")["services"]["redis"]["image"]


def test_probes_are_the_servers_own_and_the_root_is_read_only() -> None:
    (container,) = pod("teacher")["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    image = application("docker-compose.yml")["services"]["teacher"]["image"]
    assert container["image"] == image
