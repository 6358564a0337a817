"""Which request something belongs to, for the log; its spans, where OpenTelemetry's variables ask for them.

A request's span is the child of what its caller sent as `traceparent`. Under it lie admit, cache and queue;
batch, with model under it, serves many requests: it lies under the first one traced, and links to them all.
Without OTEL_EXPORTER_OTLP_ENDPOINT none of this is imported, and a part of a request costs one call
that does nothing.
"""

import os
import random
import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from teacher_server.spans import Spans

TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class TracingError(ValueError):
    """What the environment asks for cannot be had; the text names the variable and the remedy."""


class Part:
    """A part of a request that nobody traces."""

    def note(self, **attributes: float) -> None:
        """Adds numbers to the span."""


_UNTRACED: AbstractContextManager[Part] = nullcontext(Part())


class Request:
    """One request: its ids, and its parts, which nobody traces."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    @cached_property
    def ids(self) -> dict[str, str]:
        """What names it in the log and to its caller; made when first asked for."""
        sent = TRACEPARENT.fullmatch(self._headers.get("traceparent", ""))
        trace_id = sent[1] if sent else f"{random.getrandbits(128):032x}"
        return {"trace_id": trace_id, "request_id": f"{random.getrandbits(64):016x}"}

    def part(self, name: str) -> AbstractContextManager[Part]:
        """A span around what is done in the block."""
        return _UNTRACED

    def queued(self, since: int) -> None:
        """A span from `since` (ns) until the last batch with one of its texts was taken."""

    def end(self, name: str, attributes: Mapping[str, str], failure: str) -> None:
        """It was answered; `failure` is the error's code."""


NOBODY = Request({})
_current: ContextVar[Request] = ContextVar("request", default=NOBODY)


def current() -> Request:
    """The request that this task works for."""
    return _current.get()


def enter(request: Request) -> None:
    """From here on this task, which is the request's own, works for it."""
    _current.set(request)


class Untraced:
    """Makes requests without spans."""

    def request(self, headers: Mapping[str, str]) -> Request:
        return Request(headers)

    def ran(self, requests: Iterable[Request], taken: int, **attributes: float) -> None:
        """Spans of a batch that the model ran from `taken`, of time.time_ns(), until now."""

    def close(self) -> None:
        """Sends what is left."""


def from_environment(environ: Mapping[str, str] = os.environ) -> "Untraced | Spans":
    """What OpenTelemetry's standard variables ask for.

    Raises:
        TracingError: the packages are missing, or another protocol than http/protobuf is asked for.
    """
    off = (
        environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or environ.get("OTEL_TRACES_EXPORTER") == "none"
    )
    if off or not any(environ.get(name) for name in ENDPOINTS):
        return Untraced()
    for name in PROTOCOLS:
        if environ.get(name, "http/protobuf") != "http/protobuf":
            raise TracingError(
                f"{name} = {environ[name]!r}: spans are sent as http/protobuf only; "
                "unset it, and name the collector's HTTP port (4318)"
            )
    try:
        from teacher_server.spans import Spans  # noqa: PLC0415  # only who wants spans pays for the SDK
    except ImportError as error:
        raise TracingError(
            f"{ENDPOINTS[1]} is set, but {error.name} is not installed: pip install 'dynamic-kd[server]'"
        ) from None
    return Spans()


def shown(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes under this server's own prefix, as OpenTelemetry wants those that it does not know."""
    return {f"teacher.{name}": value for name, value in attributes.items()}
