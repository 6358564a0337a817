"""The composition root: settings -> parts -> serve -> drain."""

import asyncio
import dataclasses
import logging
import signal

import uvloop

from teacher_server import tracing
from teacher_server.cache import Cache, open_cache
from teacher_server.grpc_api import start_grpc
from teacher_server.health import Health
from teacher_server.http_api import make_app, start_http
from teacher_server.metrics import Metrics
from teacher_server.model import Model, ModelError
from teacher_server.pipeline import Pipeline
from teacher_server.settings import Settings, SettingsError
from teacher_server.tracing import Untraced
from teacher_server.watch import Watch

LAST_WORDS_SECONDS = 1.0  # for answers on their way out when all requests are done
MIB = 2**20

log = logging.getLogger(__name__)


def run(chosen: Settings) -> int:
    """Loads the model and serves it until told to stop; returns the exit code.

    Raises:
        SettingsError: the model cannot be served, the cache's address not be read, or an address not
            be listened on.
    """
    log.info("loading", extra={"settings": chosen.shown()})
    try:
        model = load_model(chosen)
    except ModelError as error:
        raise SettingsError(str(error)) from error
    return uvloop.run(serve(chosen, model))


def load_model(chosen: Settings) -> Model:
    """Loaded and warm: the first answer takes no longer than any other."""
    model = Model.load(
        chosen.model,
        device=chosen.device,
        dtype=chosen.dtype,
        max_length=chosen.max_length,
        name=chosen.name,
        threads=chosen.threads,
    )
    model.warm_up(chosen.batch_tokens)
    teacher = model.description
    log.info("model ready", extra={"dtype": teacher.dtype, "runtime": teacher.runtime})
    return model


async def serve(chosen: Settings, model: Model) -> int:
    """Serves until SIGTERM, SIGINT or the model's death, then drains; returns the exit code."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    watch = Watch(Metrics(), _tracer())
    health = Health(watch.metrics)
    pipeline = make_pipeline(chosen, model, watch)
    max_bytes = chosen.message_mib * MIB
    app = make_app(pipeline, health, watch, max_bytes)
    try:
        http, http_task, http_port = await start_http(app, chosen.host, chosen.http_port)
        grpc, grpc_port = await start_grpc(
            pipeline, health, watch, chosen.host, chosen.grpc_port, max_bytes, chosen.connection_seconds
        )
    except OSError as error:
        raise SettingsError(f"{error}; set host, grpc_port or http_port to a free address") from error
    await health.set(ready=True, reason="")
    _announce(chosen.host, grpc_port, http_port, pipeline.description.fingerprint)

    pipeline.died.add_done_callback(lambda _: stop.set())
    await stop.wait()
    dead = pipeline.died.done()
    await health.set(ready=False, reason="the model has stopped" if dead else "draining")
    log.info("stopping", extra={"reason": health.reason})
    # Clients and load balancers learn of it before anyone is refused.
    await asyncio.sleep(0 if dead else chosen.notice_seconds)
    await pipeline.drain(chosen.drain_seconds)
    http.should_exit = True
    await asyncio.gather(grpc.stop(LAST_WORDS_SECONDS), http_task)
    await pipeline.close()
    await asyncio.to_thread(watch.tracer.close)
    log.info("stopped", extra={"usage": dataclasses.asdict(pipeline.usage())})
    return int(dead)


def _tracer() -> Untraced:
    try:
        return tracing.from_environment()
    except tracing.TracingError as error:
        raise SettingsError(str(error)) from error


def make_pipeline(chosen: Settings, model: Model, watch: Watch) -> Pipeline:
    cache = make_cache(chosen)
    description = dataclasses.replace(
        model.description, max_instances=chosen.max_instances, max_characters=chosen.max_characters
    )
    watch.metrics.serves(description)
    return Pipeline(
        model,
        description,
        cache,
        watch,
        queue_texts=chosen.queue_texts,
        batch_tokens=chosen.batch_tokens,
        max_requests=chosen.max_requests,
    )


def make_cache(chosen: Settings) -> Cache:
    try:
        return open_cache(
            chosen.cache,
            entries=chosen.cache_entries,
            max_bytes=chosen.cache_mib * MIB,
            ttl_seconds=chosen.cache_ttl_seconds,
        )
    except ValueError:
        shown = chosen.shown()["cache"]
        raise SettingsError(
            f"cache = {shown!r}: not an address; a password with / ? # @ must be percent-encoded"
        ) from None


def _announce(host: str, grpc_port: int, http_port: int, fingerprint: str) -> None:
    """The one line that a script, or a test, waits for."""
    shown = f"[{host}]" if ":" in host else host
    print(f"ready grpc={shown}:{grpc_port} http={shown}:{http_port} fingerprint={fingerprint}", flush=True)
