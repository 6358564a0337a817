"""The composition root: settings -> parts -> serve -> drain."""

import asyncio
import contextlib
import ctypes
import dataclasses
import gc
import ipaddress
import logging
import signal
import sys

import uvloop

from teacher_api.prices import UNPRICED, PriceBookError, Tariff, load_tariff
from teacher_server import tracing
from teacher_server.admission import Sizes
from teacher_server.auth import Access, KeysError
from teacher_server.cache import Cache, open_cache
from teacher_server.grpc_api import start_grpc
from teacher_server.health import Health
from teacher_server.http_api import make_app, start_http
from teacher_server.metrics import Metrics
from teacher_server.model import Model, ModelError
from teacher_server.pipeline import Pipeline
from teacher_server.quota import Quota, open_budgets
from teacher_server.quota.budgets import Budgets
from teacher_server.quota.charge_log import ChargeLog
from teacher_server.settings import Settings, SettingsError
from teacher_server.tls import CertificateError, Certificates
from teacher_server.tracing import Untraced
from teacher_server.watch import Watch

# A lane needs the interpreter for microseconds between two products; Python's own 5 ms behind a busy event
# loop left cores idle for a twentieth of the time.
SWITCH_SECONDS = 0.0005
LAST_WORDS_SECONDS = 1.0  # for answers on their way out when all requests are done
MIB = 2**20

log = logging.getLogger(__name__)


def run(chosen: Settings) -> int:
    """Loads the model and serves it until told to stop; returns the exit code.

    Raises:
        SettingsError: the model cannot be served, a file or the cache's address not be read, or an
            address not be listened on.
    """
    guards = make_guards(chosen)
    log.info("loading", extra={"settings": chosen.shown()})
    try:
        model = load_model(chosen)
    except ModelError as error:
        raise SettingsError(str(error)) from error
    sys.setswitchinterval(SWITCH_SECONDS)
    return uvloop.run(serve(chosen, model, guards))


@dataclasses.dataclass(frozen=True)
class Guards:
    """What files and addresses are read for, and told wrong, before the model takes its time to load."""

    access: Access
    tariff: Tariff
    certificates: Certificates | None
    budgets: Budgets
    charge_log: ChargeLog
    cache: Cache


def make_guards(chosen: Settings) -> Guards:
    access, tariff, certificates = make_access(chosen), make_tariff(chosen), make_certificates(chosen)
    budgets, charge_log = make_accounts(chosen, tariff)
    return Guards(access, tariff, certificates, budgets, charge_log, make_cache(chosen))


def load_model(chosen: Settings) -> Model:
    """Loaded and warm: the first answer takes no longer than any other."""
    model = Model.load(
        chosen.model,
        device=chosen.device,
        dtype=chosen.dtype,
        max_length=chosen.max_length,
        name=chosen.name,
        threads=chosen.threads,
        compiled=chosen.compile,
    )
    model.warm_up()
    teacher = model.description
    log.info("model ready", extra={"dtype": teacher.dtype, "runtime": teacher.runtime})
    return model


async def serve(chosen: Settings, model: Model, guards: Guards) -> int:
    """Serves until SIGTERM, SIGINT or the model's death, then drains; returns the exit code."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    watch = Watch(Metrics(), _tracer())
    health = Health(watch.metrics)
    fingerprint = model.description.fingerprint
    quota = Quota(guards.access, guards.budgets, guards.tariff, guards.charge_log, fingerprint, watch.metrics)
    pipeline = make_pipeline(chosen, model, quota, guards.cache, watch)
    sizes = Sizes(request=chosen.request_mib * MIB, answer=chosen.message_mib * MIB)
    app = make_app(pipeline, guards.access, health, watch, sizes, chosen.metrics_open)
    try:
        http, http_task, http_port = await start_http(app, chosen.host, chosen.http_port, guards.certificates)
        grpc, grpc_port = await start_grpc(
            pipeline,
            guards.access,
            health,
            watch,
            address=_address(chosen.host, chosen.grpc_port),
            sizes=sizes,
            connection_seconds=chosen.connection_seconds,
            certificates=guards.certificates,
        )
    except OSError as error:
        raise SettingsError(f"{error}; set host, grpc_port or http_port to a free address") from error
    await guards.budgets.look()
    _settle_down()
    await health.set(ready=True, reason="")
    _announce(chosen.host, grpc_port, http_port, pipeline.description.fingerprint, guards)

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
    log.info("stopped", extra={"usage": pipeline.counts()})
    return int(dead)


def _settle_down() -> None:
    """What is loaded stays, so the collector never looks at it again; what loading has used goes back."""
    gc.freeze()
    gc.enable()
    with contextlib.suppress(AttributeError):  # glibc's alone
        ctypes.CDLL(None).malloc_trim(0)


def _tracer() -> Untraced:
    try:
        return tracing.from_environment()
    except tracing.TracingError as error:
        raise SettingsError(str(error)) from error


def make_access(chosen: Settings) -> Access:
    """Who may ask; says so in the log where that is anyone on a network."""
    try:
        access = Access(chosen.keys)
    except KeysError as error:
        raise SettingsError(str(error)) from error
    if access.open and not _is_loopback(chosen.host):
        log.warning("open: anyone who reaches this address may ask; set keys", extra={"host": chosen.host})
    return access


def make_certificates(chosen: Settings) -> Certificates | None:
    """For TLS on both faces; None leaves them plain."""
    if not chosen.tls_certificate or not chosen.tls_key:
        return None
    try:
        return Certificates(chosen.tls_certificate, chosen.tls_key, chosen.tls_client_ca)
    except CertificateError as error:
        raise SettingsError(str(error)) from error


def make_tariff(chosen: Settings) -> Tariff:
    """What a charge is priced at."""
    try:
        return load_tariff(chosen.price_book, chosen.price_feature) if chosen.price_book else UNPRICED
    except PriceBookError as error:
        raise SettingsError(f"price_book = {error}") from error


def make_accounts(chosen: Settings, tariff: Tariff) -> tuple[Budgets, ChargeLog]:
    """What keys have been charged so far, and where what they will be is written."""
    try:
        return open_budgets(chosen.budget, tariff, chosen.charge_log), ChargeLog(chosen.charge_log)
    except (OSError, KeyError, TypeError, ArithmeticError) as error:
        raise SettingsError(
            f"charge_log = {str(chosen.charge_log)!r}: cannot be used: {error}; give a file that is one, "
            "or a name in a folder that is there"
        ) from error
    except ValueError as error:
        shown = chosen.shown()["budget"]
        reason = f"{error}" if chosen.budget == "memory" else "not an address, or a price too fine"
        raise SettingsError(f"budget = {shown!r}: {reason}") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def make_pipeline(chosen: Settings, model: Model, quota: Quota, cache: Cache, watch: Watch) -> Pipeline:
    description = dataclasses.replace(
        model.description, max_instances=chosen.max_instances, max_characters=chosen.max_characters
    )
    watch.metrics.serves(description)
    return Pipeline(
        model,
        description,
        quota,
        cache,
        watch,
        queue_texts=chosen.queue_texts,
        batch_tokens=chosen.batch_tokens or model.best_tokens,
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


def _announce(host: str, grpc_port: int, http_port: int, fingerprint: str, guards: Guards) -> None:
    """The one line that a script, or a test, waits for."""
    faces = f"grpc={_address(host, grpc_port)} http={_address(host, http_port)}"
    access, tls = "open" if guards.access.open else "keys", "on" if guards.certificates else "off"
    print(f"ready {faces} fingerprint={fingerprint} access={access} tls={tls}", flush=True)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
