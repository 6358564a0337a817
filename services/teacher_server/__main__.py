"""The command line: settings -> parts -> serve -> drain.

    teacher-server serve --model DIR_OR_HUB_NAME

When both faces answer, one line goes to stdout: `ready grpc=HOST:PORT http=HOST:PORT fingerprint=…`.
Exit code: 0 after SIGTERM or SIGINT, 1 when the model thread died, 2 for wrong settings.
"""

import asyncio
import dataclasses
import logging
import os
import signal
import sys
from collections.abc import Sequence

# Spinning OpenMP threads would take the cores from the event loop; must be set before torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TQDM_DISABLE", "1")  # no progress bars among the log's lines

import uvloop

from teacher_server import logs, settings
from teacher_server.cache import open_cache
from teacher_server.grpc_api import start_grpc
from teacher_server.health import Health
from teacher_server.http_api import make_app, start_http
from teacher_server.metrics import Metrics
from teacher_server.model import Model, ModelError
from teacher_server.pipeline import Pipeline
from teacher_server.settings import Settings, SettingsError

USAGE = "usage: teacher-server serve --model DIR_OR_HUB_NAME; all settings: teacher-server serve --help"
LAST_WORDS_SECONDS = 1.0  # for answers on their way out when all requests are done
MIB = 2**20

log = logging.getLogger("teacher_server")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    command, *flags = (sys.argv[1:] if arguments is None else arguments) or [""]
    if command != "serve":
        print(USAGE, file=sys.stderr)
        return 0 if command in ("-h", "--help") else 2
    try:
        chosen = settings.load(flags)
        logs.configure(chosen.log_level)
        log.info("loading", extra={"settings": chosen.shown()})
        model = load_model(chosen)
        return uvloop.run(serve(chosen, model))
    except (SettingsError, ModelError, OSError) as error:
        print(f"teacher-server: {error}", file=sys.stderr)
        return 2


def load_model(chosen: Settings) -> Model:
    return Model.load(
        chosen.model,
        device=chosen.device,
        dtype=chosen.dtype,
        max_length=chosen.max_length,
        name=chosen.name,
        threads=chosen.threads,
    )


async def serve(chosen: Settings, model: Model) -> int:
    """Serves until SIGTERM, SIGINT or the model's death, then drains; returns the exit code."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    metrics, health = Metrics(), Health()
    pipeline = make_pipeline(chosen, model, metrics)
    max_bytes = chosen.message_mib * MIB
    app = make_app(pipeline, health, metrics, max_bytes)
    http, http_task, http_port = await start_http(app, chosen.host, chosen.http_port)
    grpc, grpc_port = await start_grpc(pipeline, health, chosen.host, chosen.grpc_port, max_bytes)
    await health.set(ready=True, reason="")
    _announce(chosen.host, grpc_port, http_port, pipeline.description.fingerprint)

    pipeline.died.add_done_callback(lambda _: stop.set())
    await stop.wait()
    dead = pipeline.died.done()
    await health.set(ready=False, reason="the model has stopped" if dead else "draining")
    log.info("stopping", extra={"reason": health.reason})
    await pipeline.drain(chosen.drain_seconds)
    http.should_exit = True
    await asyncio.gather(grpc.stop(LAST_WORDS_SECONDS), http_task)
    await pipeline.close()
    log.info("stopped", extra={"usage": dataclasses.asdict(pipeline.usage())})
    return int(dead)


def make_pipeline(chosen: Settings, model: Model, metrics: Metrics) -> Pipeline:
    cache = open_cache(
        chosen.cache,
        entries=chosen.cache_entries,
        max_bytes=chosen.cache_mib * MIB,
        ttl_seconds=chosen.cache_ttl_seconds,
    )
    description = dataclasses.replace(
        model.description, max_instances=chosen.max_instances, max_characters=chosen.max_characters
    )
    return Pipeline(
        model,
        description,
        cache,
        metrics,
        queue_texts=chosen.queue_texts,
        batch_tokens=chosen.batch_tokens,
        max_requests=chosen.max_requests,
    )


def _announce(host: str, grpc_port: int, http_port: int, fingerprint: str) -> None:
    """The one line that a script, or a test, waits for."""
    shown = f"[{host}]" if ":" in host else host
    print(f"ready grpc={shown}:{grpc_port} http={shown}:{http_port} fingerprint={fingerprint}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
