"""Every request of either face, as operators see it: a duration and a code, a span, at level debug a line."""

import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from teacher_server import tracing
from teacher_server.metrics import Metrics
from teacher_server.tracing import Request, Untraced

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

REQUEST_ID = "x-request-id"
ELSEWHERE = "other"  # in place of a method: a path that is none of ours must not become a label
_CODE_ATTRIBUTES = {"grpc": "rpc.response.status_code", "http": "http.response.status_code"}

log = logging.getLogger(__name__)


@dataclass
class Seen:
    """What became of a request.

    Attributes:
        method: as the face names it: Predict, /v1/predict.
        code: as the face names it: OK, 200.
    """

    face: str
    method: str
    code: str = ""

    def end(self, request: Request, seconds: float) -> None:
        failure = "" if self.code in ("OK", "200", "206") else self.code
        request.end(f"{self.face} {self.method}", {_CODE_ATTRIBUTES[self.face]: self.code}, failure)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("answered", extra={**vars(self), "seconds": round(seconds, 6)})


class Watch:
    """Gives each request its ids, and notes its end."""

    def __init__(self, metrics: Metrics, tracer: Untraced) -> None:
        self.metrics, self.tracer = metrics, tracer

    @contextmanager
    def request(self, face: str, method: str, headers: Mapping[str, str]) -> Iterator[Seen]:
        """Around all that a task does for one request; the task is the request's own."""
        asked = self.tracer.request(headers)
        tracing.enter(asked)
        seen, started = Seen(face, method), time.perf_counter()
        try:
            yield seen
        finally:
            seen.code = seen.code or "CANCELLED"  # nothing was answered: the caller has left
            seconds = time.perf_counter() - started
            self.metrics.requests.labels(face, seen.method, seen.code).observe(seconds)
            seen.end(asked, seconds)


class WatchedApp:
    """ASGI: watches what the application answers; a refusal names the request as the log does."""

    def __init__(self, app: App, watch: Watch) -> None:
        self._app, self._watch = app, watch

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        with self._watch.request("http", ELSEWHERE, headers) as seen:

            async def noting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    seen.code = str(message["status"])
                    if message["status"] >= 400:
                        named = (REQUEST_ID.encode(), tracing.current().ids["request_id"].encode())
                        message["headers"] = [*message["headers"], named]
                await send(message)

            try:
                await self._app(scope, receive, noting)
            finally:
                seen.method = getattr(scope.get("route"), "path", ELSEWHERE)
