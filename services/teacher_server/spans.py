"""Spans by OpenTelemetry's SDK, which reads its own variables: OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, …"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version

from opentelemetry import propagate
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    set_span_in_context,
)

from teacher_server.tracing import Part, Request, Untraced, shown

VERSION = version("dynamic-kd")
OURS = {"service.name": "teacher-server", "service.version": VERSION}


class TracedPart(Part):
    def __init__(self, span: Span) -> None:
        self._span = span

    def note(self, **attributes: float) -> None:
        self._span.set_attributes(shown(attributes))


class TracedRequest(Request):
    """A request whose parts are spans.

    Attributes:
        span: of the whole request.
        taken: when the last batch with one of its texts was taken, in ns.
        batches: that computed its texts.
    """

    def __init__(self, headers: Mapping[str, str], tracer: Tracer) -> None:
        super().__init__(headers)
        self._tracer = tracer
        self.span = tracer.start_span("request", propagate.extract(headers), kind=SpanKind.SERVER)
        self._under = set_span_in_context(self.span)
        self.taken = 0
        self.batches: list[SpanContext] = []
        context = self.span.get_span_context()
        self.ids = {"trace_id": f"{context.trace_id:032x}", "request_id": f"{context.span_id:016x}"}

    @contextmanager
    def part(self, name: str) -> Iterator[Part]:
        with self._tracer.start_as_current_span(
            name, self._under, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield TracedPart(span)
            except Exception as error:  # its own words may quote a text
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise

    def queued(self, since: int) -> None:
        links = [Link(batch) for batch in self.batches]
        span = self._tracer.start_span("queue", self._under, links=links, start_time=since)
        span.end(max(since, self.taken) if self.taken else None)

    def end(self, name: str, attributes: Mapping[str, str], failure: str) -> None:
        self.span.update_name(name)
        self.span.set_attributes(dict(attributes))
        if failure:
            self.span.set_status(Status(StatusCode.ERROR, failure))
        self.span.end()


class Spans(Untraced):
    """Makes requests with spans, and sends them to the collector that the environment names."""

    def __init__(self) -> None:
        resource = Resource.create(OURS).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._sender = BatchSpanProcessor(OTLPSpanExporter())
        self._provider.add_span_processor(self._sender)
        self._tracer = self._provider.get_tracer("teacher_server", VERSION)

    def request(self, headers: Mapping[str, str]) -> Request:
        return TracedRequest(headers, self._tracer)

    def ran(self, requests: Iterable[Request], taken: int, **attributes: float) -> None:
        asked = dict.fromkeys(one for one in requests if isinstance(one, TracedRequest))
        traced = [one for one in asked if one.span.is_recording()]
        if not traced:
            return
        batch = self._tracer.start_span(
            "batch",
            set_span_in_context(traced[0].span),
            attributes=shown(attributes),
            links=[Link(one.span.get_span_context()) for one in traced],
            start_time=taken,
        )
        self._tracer.start_span("model", set_span_in_context(batch), start_time=taken).end()
        batch.end()
        for one in traced:
            one.taken = taken
            one.batches.append(batch.get_span_context())

    def close(self) -> None:
        self._sender.shutdown()  # type: ignore[no-untyped-call]
