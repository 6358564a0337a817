"""The two images' recipes, read by BuildKit's own grammar; what can be run without an engine is run."""

import os
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import packages_distributions
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from deployment import DOCKERFILES, GPU, REPOSITORY, application, environment, ignored, instructions, only

from teacher_server.settings import Settings

SERVER, TRAINER = DOCKERFILES
each = pytest.mark.parametrize("dockerfile", DOCKERFILES)
extra_of = {SERVER: "server", TRAINER: "trainer"}
project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


@each
def test_the_base_is_pinned(dockerfile: str) -> None:
    stages: set[str] = set()
    for instruction in (one for one in instructions(dockerfile) if one.name == "FROM"):
        source, *alias = instruction.args
        assert source in stages or re.fullmatch(
            r"python:3\.11\.\d+-slim-bookworm(@sha256:[0-9a-f]{64})?", source
        )
        stages.update(alias[1:])


def test_both_images_have_the_same_base() -> None:
    assert instructions(SERVER)[0].args == instructions(TRAINER)[0].args


@each
def test_it_runs_as_a_numbered_user_that_owns_what_it_writes(dockerfile: str) -> None:
    user, entry = only(dockerfile, "USER"), only(dockerfile, "ENTRYPOINT")
    assert user.args == ["10001:10001"]
    assert user.start_line < entry.start_line
    made = next(one.original for one in instructions(dockerfile) if "useradd" in one.original)
    assert "--uid 10001" in made
    volumes = [volume for service in services_of(dockerfile) for volume in service["volumes"]]
    for target in (volume["target"] for volume in volumes if volume["type"] == "volume"):
        assert re.search(rf"install --directory --owner app .*{target}\b", made)


def services_of(dockerfile: str) -> list[dict[str, Any]]:
    services = application(*GPU)["services"].values()
    return [one for one in services if one.get("build", {}).get("dockerfile") == dockerfile]


@each
def test_it_is_built_by_compose(dockerfile: str) -> None:
    assert len(services_of(dockerfile)) == 1


@each
def test_what_it_copies_is_in_the_build_context(dockerfile: str) -> None:
    copies = [one for one in instructions(dockerfile) if one.name == "COPY"]
    sources = {source for one in copies for source in one.args[:-1]}
    assert sources == {"pyproject.toml", "README.md", "proto", "services"}
    for source in sources:
        assert (REPOSITORY / source).exists()
        assert not ignored(source)


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".venv/bin/python",
        ".env",
        "tests/deploy/deployment.py",
        "runs/student/model.safetensors",
        "services/teacher_server/__pycache__/settings.cpython-311.pyc",
        "services/x.egg-info/PKG-INFO",
    ],
)
def test_the_build_context_has_nothing_else(path: str) -> None:
    assert ignored(path)


@pytest.mark.parametrize(
    "path", ["services/teacher_server/settings.py", "proto/teacher_api/v1/teacher.proto"]
)
def test_the_build_context_has_the_code(path: str) -> None:
    assert not ignored(path)


@each
def test_it_installs_its_own_extra_only(dockerfile: str, tmp_path: Path) -> None:
    (install,) = (one.original for one in instructions(dockerfile) if "--no-index" in one.original)
    assert re.findall(r"\.whl\)\[(\w+)\]", install) == [extra_of[dockerfile]]
    assert requirements(dockerfile, tmp_path) == [
        *project["dependencies"],
        *project["optional-dependencies"][extra_of[dockerfile]],
    ]


def requirements(dockerfile: str, folder: Path) -> list[str]:
    """What the stage `requirements` writes: its RUN line, run here."""
    (run,) = (one for one in instructions(dockerfile) if "tomllib" in one.original)
    script = run.args[0].replace("/requirements.txt", str(folder / "requirements.txt"))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(["sh", "-c", script], cwd=REPOSITORY, env={"PATH": path}, timeout=30, check=True)
    return (folder / "requirements.txt").read_text().splitlines()


IMPORT_ALL = """
import importlib, pkgutil, sys
package, *absent = sys.argv[1:]
sys.modules.update(dict.fromkeys(absent))  # None: as if it were not installed
for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
    importlib.import_module(module.name)
"""


@pytest.mark.parametrize(("package", "extra"), [("teacher_server", "server"), ("student_trainer", "trainer")])
def test_a_program_does_without_the_other_ones_libraries(package: str, extra: str) -> None:
    (other,) = {"server", "trainer"} - {extra}
    absent = modules_of(other) - modules_of(extra)
    assert absent
    command = [sys.executable, "-c", IMPORT_ALL, package, *absent]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert ran.returncode == 0, ran.stderr


def modules_of(extra: str) -> set[str]:
    """Import names of the distributions that an extra names."""
    wanted = {re.split(r"[<>=;\[]", line)[0] for line in project["optional-dependencies"][extra]}
    return {module for module, owners in packages_distributions().items() if wanted & set(owners)}


@each
def test_the_libraries_are_installed_before_any_code_arrives(dockerfile: str) -> None:
    last_stage = [one.original for one in instructions(dockerfile)]
    last_stage = last_stage[max(i for i, line in enumerate(last_stage) if line.startswith("FROM")) :]
    libraries = next(i for i, line in enumerate(last_stage) if "--requirement" in line)
    code = next(i for i, line in enumerate(last_stage) if "from=wheel" in line)
    assert libraries < code
    assert not any(line.startswith(("COPY", "ADD")) for line in last_stage[:code])


@pytest.mark.parametrize(("index", "flags"), [("", ""), ("https://a/b", "--extra-index-url https://a/b ")])
@each
def test_another_index_for_torch_is_asked_only_when_named(dockerfile: str, index: str, flags: str) -> None:
    (run,) = (one.args[0] for one in instructions(dockerfile) if "--requirement" in one.original)
    script = run.replace("pip install", "echo pip install")
    ran = subprocess.run(
        ["sh", "-c", script],
        env={"TORCH_INDEX": index},
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    assert ran.stdout == f"pip install {flags}--requirement /requirements.txt\n"


@each
def test_it_starts_our_program_without_a_shell(dockerfile: str) -> None:
    entry = only(dockerfile, "ENTRYPOINT")
    assert entry.json
    assert entry.args[0] in project["scripts"]


def test_each_is_stopped_by_the_signal_that_it_handles() -> None:
    assert only(SERVER, "STOPSIGNAL").args == ["SIGTERM"]
    assert only(TRAINER, "STOPSIGNAL").args == ["SIGINT"]


@each
def test_caches_lie_where_it_may_write(dockerfile: str) -> None:
    variables = environment(dockerfile)
    assert variables["HF_HOME"].startswith("/cache/")
    assert variables["HOME"] == "/tmp"
    assert variables["PYTHONUNBUFFERED"] == "1"


def test_the_server_listens_on_the_ports_that_it_exposes() -> None:
    ports = [Settings.model_fields[name].default for name in ("grpc_port", "http_port")]
    assert only(SERVER, "EXPOSE").args == [str(port) for port in ports]
    assert environment(SERVER)["TEACHER_HOST"] == "0.0.0.0"


class Readiness(BaseHTTPRequestHandler):
    """Answers /readyz with the server's `status`."""

    def do_GET(self) -> None:
        self.send_response(self.server.status if self.path == "/readyz" else 404)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Readiness) as running:
        thread = Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def health(port: int, **variables: str) -> int:
    """Exit code of the image's own health check, asking `port` in place of the HTTP port."""
    _, python, *words = only(SERVER, "HEALTHCHECK").args
    asked = [word.replace(str(Settings.model_fields["http_port"].default), str(port)) for word in words]
    assert python == "python"
    assert asked != words
    ran = subprocess.run(
        [sys.executable, *asked], env=variables, capture_output=True, timeout=20, check=False
    )
    return ran.returncode


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (404, 1)])
def test_health_is_what_readyz_says(server: HTTPServer, status: int, code: int) -> None:
    server.status = status  # type: ignore[attr-defined]
    assert health(server.server_port) == code


def test_health_does_not_go_through_a_proxy(server: HTTPServer) -> None:
    server.status = 200  # type: ignore[attr-defined]
    assert health(server.server_port, http_proxy="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9") == 0


def test_a_server_that_is_gone_is_not_healthy() -> None:
    with socket.socket() as bound:  # bound, but nobody listens: the port stays ours, and refuses
        bound.bind(("127.0.0.1", 0))
        assert health(bound.getsockname()[1]) == 1


def test_the_trainer_needs_no_health_check() -> None:
    assert not any(one.name == "HEALTHCHECK" for one in instructions(TRAINER))
