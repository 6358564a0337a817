"""docker-compose.yml and its CPU override, as Docker Compose itself reads them."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deployment import (
    CPU,
    DOCKERFILES,
    GPU,
    REPOSITORY,
    application,
    compose,
    environment,
    only,
    redis_of,
    redis_settings,
)

from student_trainer.config import DistillSettings, parse
from teacher_server.settings import Settings, load

both = pytest.mark.parametrize("files", [GPU, CPU], ids=["gpu", "cpu"])


@both
def test_compose_accepts_the_files(files: tuple[str, ...]) -> None:
    assert set(application(*files)["services"]) == {"budget", "redis", "teacher", "trainer"}


def test_compose_would_refuse_what_is_not_in_its_schema(tmp_path: Path) -> None:
    (tmp_path / "wrong.yml").write_text("services: {a: {image: redis, restrat: always}}")
    ran = compose("wrong.yml", folder=tmp_path)
    assert ran.returncode != 0
    assert "restrat" in ran.stderr


@both
def test_a_missing_model_is_said_before_anything_starts(files: tuple[str, ...]) -> None:
    ran = compose(*files)
    assert ran.returncode != 0
    assert "set TEACHER_MODEL" in ran.stderr


def test_each_program_reserves_its_own_gpu() -> None:
    services = application(*GPU, TEACHER_GPU="1", TRAINER_GPU="GPU-8a")["services"]
    assert devices(services["teacher"]) == [
        {"driver": "nvidia", "device_ids": ["1"], "capabilities": ["gpu"]}
    ]
    assert devices(services["trainer"])[0]["device_ids"] == ["GPU-8a"]
    assert services["teacher"]["environment"]["TEACHER_DEVICE"] == "cuda"


def devices(service: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = service["deploy"]["resources"]["reservations"]["devices"]
    return found


def test_the_override_has_no_gpu_and_cpu_images_of_their_own_name() -> None:
    with_gpu, without = application(*GPU)["services"], application(*CPU)["services"]
    for name in ("teacher", "trainer"):
        assert "deploy" not in without[name]
        assert without[name]["image"] == with_gpu[name]["image"] + "-cpu"
        given = without[name]["build"]["args"].items()
        assert given - {("COMPILER", "")} == {("TORCH_INDEX", "https://download.pytorch.org/whl/cpu")}
        assert without[name]["build"]["dockerfile"] == with_gpu[name]["build"]["dockerfile"]
    assert without["teacher"]["environment"]["TEACHER_DEVICE"] == "cpu"
    given = {"TORCH_INDEX": "", "COMPILER": "g++"}
    assert application(*CPU, **given)["services"]["teacher"]["build"]["args"] == given


@pytest.fixture
def teacher_settings(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Settings:
    """The server's settings from nothing but what image and compose file set."""
    variables = (
        environment(DOCKERFILES[0]) | application(*request.param)["services"]["teacher"]["environment"]
    )
    teacher = {name: value for name, value in variables.items() if name.startswith("TEACHER_")}
    unknown = {name for name in teacher if name.removeprefix("TEACHER_").lower() not in Settings.model_fields}
    assert not unknown
    for name, value in teacher.items():
        monkeypatch.setenv(name, value)
    return load([])


@pytest.mark.parametrize("teacher_settings", [GPU, CPU], ids=["gpu", "cpu"], indirect=True)
def test_the_server_takes_what_is_set(teacher_settings: Settings) -> None:
    assert teacher_settings.model == "/models/teacher"
    assert teacher_settings.name is None  # an empty variable is no name
    assert teacher_settings.host == "0.0.0.0"
    assert teacher_settings.cache == "redis://redis:6379/0"
    assert teacher_settings.budget == "redis://budget:6379/0"
    assert teacher_settings.keys is teacher_settings.price_book is None
    volumes = application(*GPU)["services"]["teacher"]["volumes"]
    (accounts,) = (one for one in volumes if one["target"] == str(teacher_settings.charge_log.parent))
    assert not accounts.get("read_only")


@pytest.mark.parametrize("teacher_settings", [GPU], indirect=True)
def test_there_is_time_to_drain(teacher_settings: Settings) -> None:
    grace = application(*GPU)["services"]["teacher"]["stop_grace_period"]
    longest = teacher_settings.notice_seconds + teacher_settings.drain_seconds
    assert int(grace.removesuffix("s")) >= longest + 10


@pytest.mark.parametrize("teacher_settings", [GPU], indirect=True)
def test_both_faces_are_published_on_loopback_only(teacher_settings: Settings) -> None:
    services = application(*GPU, PUBLISH_GRPC="6000")["services"]
    ports = [(one["host_ip"], one["target"], one["published"]) for one in services["teacher"]["ports"]]
    assert ports == [
        ("127.0.0.1", teacher_settings.grpc_port, "6000"),
        ("127.0.0.1", teacher_settings.http_port, "8080"),
    ]
    assert "ports" not in services["redis"]
    assert "ports" not in services["trainer"]


def test_settings_of_the_user_reach_the_server() -> None:
    given = {"TEACHER_MAX_LENGTH": "512", "TEACHER_DTYPE": "bfloat16", "TEACHER_MODEL": "a/b"}
    given["TEACHER_COMPILE"] = "reduce-overhead"
    assert given.items() <= application(*CPU, **given)["services"]["teacher"]["environment"].items()


@both
def test_the_trainer_takes_its_command(files: tuple[str, ...], tmp_path: Path) -> None:
    services = application(*files)["services"]
    command, *flags = services["trainer"]["command"]
    file = tmp_path / "run.yaml"
    file.write_text(example())
    settings = parse(DistillSettings, [str(file) if flag == "/task/run.yaml" else flag for flag in flags], "")
    assert command == "distill"
    assert settings.teacher == [f"grpc://teacher:{Settings.model_fields['grpc_port'].default}"]
    writable = {v["target"] for v in services["trainer"]["volumes"] if not v.get("read_only")}
    assert {str(settings.output.parent), str(settings.answers.parent)} <= writable


def example() -> str:
    """The run.yaml of deploy/README.md."""
    (block,) = re.findall(r"```yaml\n(.*?)```", (REPOSITORY / "deploy/README.md").read_text(), re.DOTALL)
    return str(block)


def test_every_variable_is_in_the_readme() -> None:
    text = "".join((REPOSITORY / file).read_text() for file in (*CPU, "deploy/replicas.yml"))
    used = set(re.findall(r"\$\{([A-Z_0-9]+)", text))
    documented = (REPOSITORY / "deploy/README.md").read_text()
    missing = {
        name
        for name in used
        if name not in documented and f"`{name.removeprefix('TEACHER')}`" not in documented
    }
    assert "TEACHER_MODEL" in used
    assert not missing


@both
def test_every_service_is_locked_down(files: tuple[str, ...]) -> None:
    for service in application(*files)["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service
        assert "/tmp" in service["tmpfs"]


@pytest.mark.parametrize(("network", "service"), [("cache", "redis"), ("budget", "budget")])
def test_only_the_teacher_reaches_cache_and_accounts(network: str, service: str) -> None:
    model = application(*GPU)
    assert model["networks"][network]["internal"] is True
    inside = {name for name, one in model["services"].items() if network in one["networks"]}
    assert inside == {service, "teacher"}


def test_volumes_are_declared_and_the_users_folders_read_only() -> None:
    model = application(*GPU)
    mounts = [mount for service in model["services"].values() for mount in service.get("volumes", [])]
    assert {mount["source"] for mount in mounts if mount["type"] == "volume"} == set(model["volumes"])
    assert all(mount["read_only"] for mount in mounts if mount["type"] == "bind")


@both
def test_images_are_pinned_to_a_version(files: tuple[str, ...]) -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    services = application(*files)["services"]
    assert re.fullmatch(r"redis:\d+\.\d+\.\d+", services["redis"]["image"])
    assert services["budget"]["image"] == services["redis"]["image"]
    for name in ("teacher", "trainer"):
        assert services[name]["image"].split(":")[1].removesuffix("-cpu") == version
        assert services[name]["pull_policy"] == "build"  # the name is ours on no registry


def test_each_waits_for_a_health_check_of_the_one_it_needs() -> None:
    services = application(*GPU)["services"]
    assert services["teacher"]["depends_on"]["redis"]["condition"] == "service_healthy"
    assert services["teacher"]["depends_on"]["budget"]["condition"] == "service_healthy"
    assert services["trainer"]["depends_on"]["teacher"]["condition"] == "service_healthy"
    assert services["redis"]["healthcheck"]["test"] == services["budget"]["healthcheck"]["test"]
    assert "test" not in services["teacher"]["healthcheck"]  # so that the image's own holds
    assert "/readyz" in only(DOCKERFILES[0], "HEALTHCHECK").args[-1]


def test_our_programs_hear_signals_from_their_first_moment() -> None:
    services = application(*GPU)["services"]
    assert services["teacher"]["init"] is services["trainer"]["init"] is True


def test_the_trainer_is_started_by_hand_only() -> None:
    trainer = application(*GPU)["services"]["trainer"]
    assert trainer["profiles"] == ["train"]
    assert "restart" not in trainer


@pytest.fixture
def redis_socket(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A redis-server started with the compose file's own command, of the cache if not told otherwise."""
    services = application(*GPU, REDIS_MAXMEMORY="64mb", BUDGET_MAXMEMORY="32mb")["services"]
    with redis_of(services[getattr(request, "param", "redis")]["command"], tmp_path) as socket:
        yield socket


def test_a_second_replica_is_the_first_on_another_gpu_under_the_same_name() -> None:
    services = application(*GPU, "deploy/replicas.yml")["services"]
    first, second = services["teacher"], services["teacher-2"]
    assert [one["device_ids"] for one in (*devices(first), *devices(second))] == [["0"], ["1"]]
    assert second["networks"] == {
        "budget": None,
        "cache": None,
        "default": {"aliases": ["teacher"]},
    }
    own = ("deploy", "networks", "ports")
    assert {name: value for name, value in second.items() if name not in own} == {
        name: value for name, value in first.items() if name not in own
    }
    assert "ports" not in second


def test_replicas_by_scale_share_a_range_of_the_hosts_ports() -> None:
    ranges = {"PUBLISH_GRPC": "50051-50053", "PUBLISH_HTTP": "8080-8082"}
    ports = application(*CPU, **ranges)["services"]["teacher"]["ports"]
    assert {one["published"] for one in ports} == set(ranges.values())


def test_redis_is_a_cache_without_a_disk(redis_socket: Path) -> None:
    settings = redis_settings(redis_socket, "maxmemory", "maxmemory-policy", "save", "appendonly")
    assert settings == {
        "maxmemory": str(64 * 2**20),
        "maxmemory-policy": "allkeys-lru",
        "save": "",
        "appendonly": "no",
    }
    assert healthy(redis_socket)
    assert not healthy(redis_socket.with_name("absent.sock"))


@pytest.mark.parametrize("redis_socket", ["budget"], indirect=True)
def test_the_accounts_are_on_a_disk_and_never_evicted(redis_socket: Path) -> None:
    settings = redis_settings(redis_socket, "maxmemory", "maxmemory-policy", "appendonly", "appendfsync")
    assert settings == {
        "maxmemory": str(32 * 2**20),
        "maxmemory-policy": "noeviction",
        "appendonly": "yes",
        "appendfsync": "always",
    }
    volumes = application(*GPU)["services"]["budget"]["volumes"]
    assert [(one["type"], one["target"]) for one in volumes] == [("volume", "/data")]


def healthy(socket: Path) -> bool:
    """Runs the compose file's own health check against a socket."""
    _, program, *words = application(*GPU)["services"]["redis"]["healthcheck"]["test"]
    ran = subprocess.run([program, "-s", str(socket), *words], capture_output=True, timeout=10, check=False)
    return ran.returncode == 0
