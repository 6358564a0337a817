"""Watches the gRPC face: outermost of its interceptors, so that it sees what the others make of a call."""

from typing import Any

import grpc

from teacher_server.grpc_api.interceptor import Context
from teacher_server.watch import Watch

NOT_OURS = "/grpc."  # health and reflection


class Watched(grpc.aio.ServerInterceptor):
    """Notes each call of our services, or each stream."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(NOT_OURS):
            return handler
        name = method.rpartition("/")[2]
        if handler.unary_unary:
            return handler._replace(unary_unary=self._unary(handler.unary_unary, name))
        return handler._replace(stream_stream=self._stream(handler.stream_stream, name))

    def _unary(self, answer: Any, name: str) -> Any:
        async def watched(request: Any, context: Context) -> Any:
            with self._watch.request("grpc", name, _headers(context)) as seen:
                try:
                    return await answer(request, context)
                finally:
                    seen.code = _code(context)

        return watched

    def _stream(self, answer: Any, name: str) -> Any:
        async def watched(requests: Any, context: Context) -> None:
            open_now = self._watch.metrics.streams.track_inprogress()
            with open_now, self._watch.request("grpc", name, _headers(context)) as seen:
                try:
                    await answer(requests, context)
                finally:
                    seen.code = _code(context)

        return watched


def _code(context: Context) -> str:
    code: Any = context.code()  # a number, whatever its type hint says; none yet where all went well
    return next((one.name for one in grpc.StatusCode if code in (one, one.value[0])), "OK")


def _headers(context: Context) -> dict[str, str]:
    return {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
