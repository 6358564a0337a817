"""What Docker would make of the repository's files: Compose's own merge, BuildKit's own syntax."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from e2b_dockerfile_utils import DockerfileInstruction, PatternMatcher, parse_dockerfile_ast
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

REPOSITORY = Path(__file__).parents[2]
GPU = ("docker-compose.yml",)
CPU = ("docker-compose.yml", "docker-compose.cpu.yml")
DOCKERFILES = ("deploy/teacher-server.Dockerfile", "deploy/student-trainer.Dockerfile")


def compose(*files: str, folder: Path = REPOSITORY, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs Docker Compose's own `config`: schema, interpolation and merge, without an engine."""
    program = Path(sys.executable).with_name("docker-compose")
    chosen = [word for file in files for word in ("--file", str(folder / file))]
    return subprocess.run(
        [program, "--env-file", os.devnull, *chosen, "--profile", "train", "config", "--format", "json"],
        env={"PATH": os.environ["PATH"], "HOME": os.devnull, **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@cache
def application(*files: str, **variables: str) -> dict[str, Any]:
    """The merged model of the files, with TEACHER_MODEL set unless `variables` says otherwise."""
    ran = compose(*files, **{"TEACHER_MODEL": "/models/teacher", **variables})
    assert ran.returncode == 0, ran.stderr
    model: dict[str, Any] = json.loads(ran.stdout)
    return model


@contextmanager
def redis_of(command: Sequence[str], folder: Path) -> Iterator[Path]:
    """A redis-server started with a deployment's own command; its socket, as soon as it answers."""
    path = folder / "redis.sock"
    arguments = [*command, "--port", "0", "--unixsocket", str(path), "--dir", str(folder)]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as process:
        try:
            redis_settings(path, "port")
            yield path
        finally:
            process.terminate()


def redis_settings(socket: Path, *names: str) -> dict[str, str]:
    """What a redis-server says that it was told."""
    retry = Retry(ConstantBackoff(0.05), retries=200)
    with Redis(unix_socket_path=str(socket), retry=retry, decode_responses=True) as client:
        client.ping()
        found: dict[str, str] = client.config_get(*names)
        return found


def instructions(dockerfile: str) -> list[DockerfileInstruction]:
    ast = parse_dockerfile_ast((REPOSITORY / dockerfile).read_text())
    assert not ast.warnings, ast.warnings
    return ast.instructions


def only(dockerfile: str, name: str) -> DockerfileInstruction:
    """The one instruction of that name in the last stage."""
    every = instructions(dockerfile)
    last_stage = max(index for index, one in enumerate(every) if one.name == "FROM")
    (found,) = (one for one in every[last_stage:] if one.name == name)
    return found


def environment(dockerfile: str) -> dict[str, str]:
    """What the file's ENV lines set, in all stages."""
    words = [word for one in instructions(dockerfile) if one.name == "ENV" for word in one.args]
    return dict(zip(words[0::3], words[1::3], strict=True))


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a file out of the build context."""
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return PatternMatcher(patterns).matches(path)
