"""An OTLP collector on a socket: what a server's SDK sends over HTTP, parsed from its protobuf."""

import gzip
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

PATIENCE_SECONDS = 20


class Collector:
    """What was received.

    Attributes:
        bodies: as they came.
        services: values of service.name.
    """

    def __init__(self) -> None:
        self.endpoint = ""
        self.bodies: list[bytes] = []
        self.services: set[str] = set()
        self.spans: list[Span] = []

    def receive(self, body: bytes) -> None:
        self.bodies.append(body)
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            named = (one.value.string_value for one in group.resource.attributes if one.key == "service.name")
            self.services.update(named)
            self.spans.extend(span for scope in group.scope_spans for span in scope.spans)

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def wait(self, there: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while not there():
            assert time.monotonic() < until, f"only {sorted(span.name for span in self.spans)} came"
            time.sleep(0.05)


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens; `endpoint` is what OTEL_EXPORTER_OTLP_ENDPOINT takes."""
    collector = Collector()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            known = self.path == "/v1/traces"
            if known:
                zipped = self.headers.get("content-encoding") == "gzip"
                collector.receive(gzip.decompress(body) if zipped else body)
            self.send_response(200 if known else 404)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        collector.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield collector
        server.shutdown()
        thread.join()
