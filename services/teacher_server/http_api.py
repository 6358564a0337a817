"""The HTTP face: JSON in, pipeline, JSON out; every call is answered from the error table."""

import asyncio
import contextlib
import json
import logging
import math
import socket
from collections.abc import Iterator
from typing import Annotated, Any

import uvicorn
from fastapi import Body, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.telemetry import TelemetryConfig
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from teacher_api.errors import (
    TABLE,
    DeadlineExceededError,
    InvalidRequestError,
    NotReadyError,
    TeacherError,
    TooLargeError,
    UnauthenticatedError,
    as_teacher_error,
)
from teacher_api.messages import Answer, Description, Usage
from teacher_server import page
from teacher_server.admission import Sizes
from teacher_server.auth import CALLER, OPERATION, Access
from teacher_server.failures import of_the_table
from teacher_server.health import Health
from teacher_server.http_bodies import (
    LOOP_BYTES,
    Encoding,
    PredictRequest,
    PredictResponse,
    Refusal,
    answer_to_json,
    as_invalid_request,
    bytes_of,
    error_to_json,
    legible,
    refuse_coding,
)
from teacher_server.http_patience import Impatient
from teacher_server.http_v2 import make_router
from teacher_server.http_v2_bodies import status_of
from teacher_server.open_inference import OpenInference
from teacher_server.pipeline import Pipeline
from teacher_server.tls import Certificates
from teacher_server.watch import App, Message, Receive, Send, Watch, WatchedApp

OPEN_PATHS = frozenset(("/livez", "/readyz", "/v2/health/live", "/v2/health/ready"))
BODY_SECONDS = 20  # a body that takes longer is a slow-loris, not a caller
KEEP_ALIVE_SECONDS = 75
SCHEMES = ("Bearer", 'Basic realm="teacher-server, the key as password"')
# Its spans would be told of each request twice, and its logs quote what an exception says.
NOT_FASTAPIS: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}

log = logging.getLogger(__name__)


def make_app(
    pipeline: Pipeline, access: Access, health: Health, watch: Watch, sizes: Sizes, metrics_open: bool
) -> App:
    """The application; requests and answers that are larger are refused, and so are callers unknown."""
    app = FastAPI(title="teacher-server", version="1", exception_handlers=_handlers(), telemetry=NOT_FASTAPIS)
    refusals: dict[int | str, dict[str, Any]] = {
        wire.http_status: {"model": Refusal, "description": kind.code} for kind, wire in TABLE.items()
    }

    @app.get("/v1/describe")
    async def describe() -> Description:
        return pipeline.description

    @app.get("/v1/usage")
    async def usage() -> Usage:
        return await pipeline.usage(CALLER.get())

    @app.post("/v1/predict", response_model=PredictResponse, responses=refusals)
    async def predict(request: Annotated[PredictRequest, Body()]) -> Response:
        with of_the_table():
            answers = await pipeline.predict(request.question())
        body = await _written(answers, request.encoding, sizes.answer)
        fingerprint = json.dumps(pipeline.description.fingerprint)
        return Response(f'{{"fingerprint":{fingerprint},"answers":{body}}}', media_type="application/json")

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/readyz", responses={503: {"model": Refusal}})
    async def readyz() -> dict[str, str]:
        if not health.ready:
            raise NotReadyError(health.reason)
        return {"status": "ready"}

    @app.get("/", include_in_schema=False)
    async def seen() -> Response:
        return HTMLResponse(
            page.render(pipeline.description, CALLER.get(), await status()), headers=page.HEADERS
        )

    @app.get("/status", include_in_schema=False)
    async def status() -> dict[str, Any]:
        return page.status(watch.metrics, health) | {"usage": page.used(await pipeline.usage(CALLER.get()))}

    @app.get("/metrics", response_class=Response)
    async def scraped() -> Response:
        if not metrics_open:
            access.named(CALLER.get()).require("admin")
        keys = (key.name for key in access.keys)
        return Response(watch.metrics.text(keys), media_type=CONTENT_TYPE_LATEST)

    app.include_router(make_router(OpenInference(pipeline, health, sizes.answer)))
    open_paths = OPEN_PATHS | {"/metrics"} if metrics_open else OPEN_PATHS
    return WatchedApp(Gate(app, access, sizes.request, open_paths), watch)


class Gate:
    """ASGI: lets callers in whom it knows, reads the body within its limits, and stops the work of one who
    leaves."""

    def __init__(self, app: App, access: Access, max_bytes: int, open_paths: frozenset[str]) -> None:
        self._app, self._access, self._max_bytes, self._open_paths = app, access, max_bytes, open_paths

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        try:
            self._know(scope)
            async with asyncio.timeout(BODY_SECONDS):
                body = await self._body(scope, receive)
        except TimeoutError:
            late = DeadlineExceededError("the body took too long", limit=f"{BODY_SECONDS} s")
            await _refusal(late, scope.get("path", ""), close=True)(scope, receive, send)
        except UnauthenticatedError as error:
            await _refusal(error, scope["path"], close=True)(scope, receive, send)
        except InvalidRequestError as error:
            # Not closed: uvicorn reads on and discards, so that the caller can read why.
            await _refusal(error, scope["path"])(scope, receive, send)
        else:
            await self._answer(scope, body, receive, send)

    def _know(self, scope: Message) -> None:
        """Who calls, and within which operation; an open path asks nobody."""
        if scope["path"] in self._open_paths:
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        CALLER.set(self._access.authenticate(headers.get(b"authorization", "")).name)
        OPERATION.set(headers.get(b"operation-id", ""))

    async def _body(self, scope: Message, receive: Receive) -> bytes:
        headers = dict(scope["headers"])
        announced = headers.get(b"content-length", b"0")
        self._check_size(int(announced) if announced.isdigit() else 0)
        body, more = bytearray(), True
        while more:
            message = await receive()
            body += message.get("body", b"")
            if body:
                refuse_coding(headers.get(b"content-encoding", b"identity"))
            more = message.get("more_body", False)
            self._check_size(len(body))
        return bytes(body)

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise TooLargeError("the request is too large", value=size, limit=self._max_bytes)

    async def _answer(self, scope: Message, body: bytes, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(receive())  # after the body: the caller left, or has its answer
        unread = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return unread.pop() if unread else await asyncio.shield(gone)

        answer = asyncio.ensure_future(self._app(scope, replay, send))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not answer.done():
                answer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await answer


class InOurLoop(uvicorn.Server):
    """Leaves the signals to the process, which has more to stop than this server."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def start_http(
    app: App, host: str, port: int, certificates: Certificates | None = None
) -> tuple[InOurLoop, asyncio.Task[None], int]:
    """A running server, the task that ends with it, and the port that it got.

    Raises:
        OSError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=1024)
    config = uvicorn.Config(
        app,
        http=Impatient,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=1,  # by then all requests are done
        ssl_context_factory=(lambda _, __: certificates.context()) if certificates else None,
    )
    server = InOurLoop(config)
    task = asyncio.create_task(server.serve([listener]))
    await server.listening.wait()
    return server, task, listener.getsockname()[1]


async def _written(answers: list[Answer], encoding: Encoding, max_bytes: int) -> str:
    size = bytes_of(answers)
    if size > max_bytes:
        raise TooLargeError(
            "the answers are too large: ask fewer instances at once", value=size, limit=max_bytes
        )

    def write() -> str:
        # One by one: json's encoder gives the loop no turn before it has done all that it was given.
        written = (answer_to_json(answer, encoding) for answer in answers)
        return f"[{','.join(json.dumps(one, allow_nan=False, separators=(',', ':')) for one in written)}]"

    return write() if size < LOOP_BYTES else await asyncio.to_thread(write)


# ---- errors ----


def _handlers() -> dict[int | type[Exception], Any]:
    return {
        TeacherError: _on_teacher_error,
        RequestValidationError: _on_validation_error,
        HTTPException: _on_http_exception,
        Exception: _on_failure,
    }


async def _on_teacher_error(request: Request, error: TeacherError) -> Response:
    return _refusal(error, request.url.path)


async def _on_validation_error(request: Request, error: RequestValidationError) -> Response:
    return _refusal(as_invalid_request(error.errors(), skipped=1), request.url.path)


async def _on_http_exception(request: Request, error: HTTPException) -> Response:
    """FastAPI's own: 400 is a body that cannot be read; 404 and 405 keep their status."""
    status = None if error.status_code == 400 else error.status_code
    refused = _refusal(InvalidRequestError(str(error.detail)), request.url.path, status=status)
    refused.headers.update(error.headers or {})  # a 405 says what is allowed
    return refused


async def _on_failure(request: Request, error: Exception) -> Response:
    # Starlette raises the error on; uvicorn logs it.
    return _refusal(as_teacher_error(error), request.url.path)


def _refusal(error: TeacherError, path: str, *, status: int | None = None, close: bool = False) -> Response:
    headers = {"connection": "close"} if close else {}
    if error.retry_after_ms:
        headers["retry-after"] = str(math.ceil(error.retry_after_ms / 1000))
    status = status or TABLE[type(error)].http_status
    told: Any = error_to_json(error)
    if path.startswith("/v2"):  # the Open Inference Protocol's errors are texts
        status, told = status_of(status), legible(str(error))
    response = JSONResponse({"error": told}, status, headers=headers)
    if isinstance(error, UnauthenticatedError):
        for scheme in SCHEMES:  # a line each: Chromium reads one scheme of a line
            response.headers.append("www-authenticate", scheme)
    return response
