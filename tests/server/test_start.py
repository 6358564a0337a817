"""What starting and stopping a server costs: nothing that was not asked for, and little to end."""

import resource
import subprocess
import sys

import psutil
from processes import ServerProcess, StartServer

STOP_CPU_SECONDS = 0.7  # a twentieth of it; to take the interpreter apart took 1.35


def test_what_is_not_asked_for_is_not_loaded() -> None:
    """Each of these costs time and memory: a Redis, or a collector of spans, has to be named first."""
    ask = "import sys, teacher_server.serving; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, check=True, timeout=120
    )
    loaded = set(done.stdout.split())
    assert "teacher_server.cache.memory" in loaded
    assert not loaded & {"redis", "opentelemetry.sdk", "opentelemetry.exporter", "teacher_server.spans"}


def test_what_transformers_takes_along_is_left(server: ServerProcess) -> None:
    """45 MB on a host that has the trainer's packages; a library that is loaded lies in the memory map."""
    libraries = {one.path for one in psutil.Process(server.process.pid).memory_maps()}
    assert any("/torch/" in path for path in libraries)
    assert not any(f"/{package}/" in path for path in libraries for package in ("PIL", "scipy"))


def test_a_process_that_stops_is_gone_at_once(new_server: StartServer) -> None:
    running = new_server()
    before, ended = sum(psutil.Process(running.process.pid).cpu_times()[:2]), _of_ended_children()
    assert running.stop() == 0
    assert _of_ended_children() - ended - before < STOP_CPU_SECONDS
    assert '"stopped"' in running.log.read_text().splitlines()[-1]  # the log's last line is not lost


def _of_ended_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
