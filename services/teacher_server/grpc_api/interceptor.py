"""Every call is answered, from the error table, whatever goes wrong in its handler."""

import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from teacher_api.errors import (
    TABLE,
    InvalidRequestError,
    TeacherError,
    TooLargeError,
    error_to_proto,
)
from teacher_server import tracing
from teacher_server.admission import Sizes
from teacher_server.failures import of_the_table
from teacher_server.watch import REQUEST_ID

Context = grpc.aio.ServicerContext[Any, Any]

ERROR_METADATA = "teacher-error-bin"
OUR_METHODS = ("/teacher_api.v1.", "/inference.")


class AnswersEveryCall(grpc.aio.ServerInterceptor):
    """Reads the messages itself and turns whatever goes wrong into the error table's code.

    grpc.aio would answer a malformed message with INTERNAL, send any exception's text to the caller,
    and not answer at all when a handler raises CancelledError.
    """

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(OUR_METHODS):
            return handler
        return self._stream(handler) if handler.response_streaming else self._unary(handler)

    def _unary(self, handler: Any) -> Any:
        read = self._reader(handler.request_deserializer)

        async def answer(data: bytes, context: Context) -> bytes | None:
            async with told(context):
                return self._write(await handler.unary_unary(read(data), context))
            return None

        return grpc.unary_unary_rpc_method_handler(answer)

    def _stream(self, handler: Any) -> Any:
        async def answer(requests: AsyncIterable[Message], context: Context) -> None:
            async with told(context):
                await handler.stream_stream(requests, context)

        # Here both ways are taken inside the handler, where what they raise can be told.
        read = self._reader(handler.request_deserializer)
        return grpc.stream_stream_rpc_method_handler(answer, read, self._write)

    def _reader(self, parse: Callable[[bytes], Message]) -> Callable[[bytes], Message]:
        def read(data: bytes) -> Message:
            if len(data) > self._sizes.request:
                raise TooLargeError("the request is too large", value=len(data), limit=self._sizes.request)
            try:
                return parse(data)
            except DecodeError:
                raise InvalidRequestError("not a message of this method") from None

        return read

    def _write(self, response: Message) -> bytes:
        data = response.SerializeToString()
        if len(data) > self._sizes.answer:
            raise TooLargeError(
                "the answers are too large: ask fewer instances at once",
                value=len(data),
                limit=self._sizes.answer,
            )
        return data


@contextlib.asynccontextmanager
async def told(context: Context) -> AsyncIterator[None]:
    """Ends the call with the error's code and text."""
    try:
        with of_the_table():
            yield
    except TeacherError as error:
        code = grpc.StatusCode[TABLE[type(error)].grpc_code]
        detail = error_to_proto(error).SerializeToString()
        named = (REQUEST_ID, tracing.current().ids["request_id"])
        await context.abort(code, str(error), trailing_metadata=((ERROR_METADATA, detail), named))
