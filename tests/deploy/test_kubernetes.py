"""deploy/kubernetes.yml: Kubernetes's schemas know it, the server takes what it sets, and the names meet."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from deployment import DOCKERFILES, REPOSITORY, application, environment, redis_of, redis_settings

from student_trainer.teachers import connect
from teacher_server import health
from teacher_server.settings import Settings, load

FILE = (REPOSITORY / "deploy/kubernetes.yml").read_text()
OBJECTS = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(FILE)}
PODS = {"teacher": "StatefulSet", "budget": "StatefulSet", "answers": "Deployment"}
VERSIONS = ("1.27", kubernetes_validate.latest_version())


def pod(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = OBJECTS[PODS[name], name]["spec"]["template"]["spec"]
    return spec


def container(name: str) -> dict[str, Any]:
    (found,) = pod(name)["containers"]
    return dict(found)


@pytest.fixture
def teacher_settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The server's settings from nothing but what image and file set."""
    set_here = {one["name"]: one["value"] for one in container("teacher")["env"]}
    for name, value in (environment(DOCKERFILES[0]) | set_here).items():
        monkeypatch.setenv(name, value)
    return load([])


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schemas_of_the_first_and_the_latest_version_know_all_of_it(version: str) -> None:
    assert "Kubernetes 1.27 or newer" in FILE
    for one in OBJECTS.values():
        kubernetes_validate.validate(one, version, strict=True)


def test_a_field_that_is_not_in_the_schema_would_be_refused() -> None:
    wrong = OBJECTS["Service", "budget"] | {"spec": {"selectr": {"app": "budget"}}}
    with pytest.raises(kubernetes_validate.ValidationError, match="selectr"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_the_server_takes_what_is_set_and_has_time_to_drain(teacher_settings: Settings) -> None:
    assert teacher_settings.notice_seconds == 10
    longest = teacher_settings.notice_seconds + teacher_settings.drain_seconds
    assert pod("teacher")["terminationGracePeriodSeconds"] >= longest + 10
    ports = [one["containerPort"] for one in container("teacher")["ports"]]
    assert ports == [teacher_settings.grpc_port, teacher_settings.http_port]
    assert teacher_settings.host == "0.0.0.0"


def test_without_the_secret_of_keys_nothing_starts(teacher_settings: Settings) -> None:
    (volume,) = (one for one in pod("teacher")["volumes"] if "secret" in one)
    assert not volume["secret"].get("optional")  # Kubernetes waits for it
    (mount,) = (one for one in container("teacher")["volumeMounts"] if one["name"] == volume["name"])
    assert "subPath" not in mount
    assert teacher_settings.keys is not None
    assert Path(mount["mountPath"]) == teacher_settings.keys.parent
    command = f"kubectl create secret generic {volume['secret']['secretName']} --from-file=(.*)"
    assert re.findall(command, FILE) == [teacher_settings.keys.name]
    assert f"--keys {teacher_settings.keys.name}" in FILE
    mode = volume["secret"]["defaultMode"]
    assert (mode & 0o040, mode & 0o022) == (
        0o040,
        0,
    )  # the group's, which is fsGroup, to read; nobody's to write
    assert pod("teacher")["securityContext"]["fsGroup"] == 10001


def test_each_replica_keeps_its_charges_on_a_volume_of_its_own(teacher_settings: Settings) -> None:
    claims = {
        one["metadata"]["name"] for one in OBJECTS["StatefulSet", "teacher"]["spec"]["volumeClaimTemplates"]
    }
    mounts = {one["mountPath"]: one["name"] for one in container("teacher")["volumeMounts"]}
    assert teacher_settings.charge_log is not None
    assert mounts[str(teacher_settings.charge_log.parent)] in claims
    assert mounts["/cache"] in claims
    volumes = claims | {one["name"] for one in pod("teacher")["volumes"]}
    assert set(mounts.values()) == volumes


async def test_the_name_is_headless_and_the_trainers() -> None:
    service = OBJECTS["Service", "teachers"]["spec"]
    teacher = OBJECTS["StatefulSet", "teacher"]["spec"]
    assert service["clusterIP"] == "None"
    assert teacher["serviceName"] == "teachers"
    assert (
        service["selector"] == teacher["selector"]["matchLabels"] == teacher["template"]["metadata"]["labels"]
    )
    (port,) = service["ports"]
    address = f"grpc://teachers:{port['port']}"
    assert address in FILE
    await connect(address).close()


@pytest.mark.parametrize(("name", "setting"), [("answers", "cache"), ("budget", "budget")])
def test_both_stores_are_the_services_that_are_named(
    name: str, setting: str, teacher_settings: Settings
) -> None:
    (port,) = OBJECTS["Service", name]["spec"]["ports"]
    assert getattr(teacher_settings, setting) == f"redis://{name}:{port['port']}/0"
    assert container(name)["image"] == application("docker-compose.yml")["services"]["redis"]["image"]
    (policy,) = (one["spec"] for (kind, _), one in OBJECTS.items() if kind == "NetworkPolicy")
    labels = OBJECTS[PODS[name], name]["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["ingress"] == [
        {"from": [{"podSelector": {"matchLabels": {"app": "teacher"}}}], "ports": [{"port": port["port"]}]}
    ]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("answers", {"maxmemory-policy": "allkeys-lru", "save": "", "appendonly": "no"}),
        ("budget", {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "always"}),
    ],
)
def test_a_real_redis_takes_each_command(name: str, told: dict[str, str], tmp_path: Path) -> None:
    with redis_of(container(name)["args"], tmp_path) as socket:
        assert redis_settings(socket, *told) == told


def test_the_accounts_are_on_a_disk() -> None:
    (claim,) = OBJECTS["StatefulSet", "budget"]["spec"]["volumeClaimTemplates"]
    assert container("budget")["volumeMounts"] == [{"name": claim["metadata"]["name"], "mountPath": "/data"}]


def test_probes_ask_grpcs_health_service_for_what_it_knows(teacher_settings: Settings) -> None:
    teacher = container("teacher")
    probes = {kind: teacher[f"{kind}Probe"]["grpc"] for kind in ("startup", "readiness", "liveness")}
    assert {one["port"] for one in probes.values()} == {teacher_settings.grpc_port}
    for kind in ("startup", "readiness"):
        assert probes[kind].get("service", "") in health.SERVICES
    assert probes["liveness"]["service"] == health.ALIVE  # a server that drains is not to be killed for it


@pytest.mark.parametrize("name", PODS)
def test_every_pod_is_locked_down(name: str) -> None:
    inside = container(name)["securityContext"]
    assert inside["readOnlyRootFilesystem"] is True
    assert inside["allowPrivilegeEscalation"] is False
    assert inside["capabilities"] == {"drop": ["ALL"]}
    assert pod(name)["automountServiceAccountToken"] is False
    assert pod(name)["securityContext"]["runAsNonRoot"] is True
    assert "memory" in container(name)["resources"]["limits"]


def test_the_image_is_the_one_that_compose_builds() -> None:
    assert container("teacher")["image"] == application("docker-compose.yml")["services"]["teacher"]["image"]
