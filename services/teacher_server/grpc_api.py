"""The gRPC face: protobuf in, pipeline, protobuf out; every call is answered from the error table."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from teacher_api.errors import (
    TABLE,
    InvalidRequestError,
    TeacherError,
    TooLargeError,
    as_teacher_error,
    error_to_proto,
)
from teacher_api.messages import (
    Want,
    answer_to_proto,
    description_to_proto,
    instance_from_proto,
    usage_to_proto,
    want_from_proto,
)
from teacher_api.v1 import teacher_pb2 as pb
from teacher_api.v1 import teacher_pb2_grpc as pb_grpc
from teacher_server.admission import Question, check_count
from teacher_server.health import Health
from teacher_server.pipeline import Pipeline

Context = grpc.aio.ServicerContext[Any, Any]
Handler = Callable[[Any, Context], Awaitable[Message]]

ERROR_METADATA = "teacher-error-bin"
OUR_METHODS = "/teacher_api.v1."

log = logging.getLogger(__name__)


class TeacherService(pb_grpc.TeacherServiceServicer):
    """A few lines a method."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    async def Describe(self, request: pb.DescribeRequest, context: Context) -> pb.DescribeResponse:
        return description_to_proto(self._pipeline.description)

    async def Predict(self, request: pb.PredictRequest, context: Context) -> pb.PredictResponse:
        teacher = self._pipeline.description
        check_count(len(request.instances), teacher)  # empty ones take two bytes each on the wire
        answers = await self._pipeline.predict(_question(request, context.time_remaining()))
        return pb.PredictResponse(answers=map(answer_to_proto, answers), fingerprint=teacher.fingerprint)

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:
        return usage_to_proto(self._pipeline.usage())


class AnswersEveryCall(grpc.aio.ServerInterceptor):
    """Reads the message itself and turns whatever goes wrong into the error table's code.

    grpc.aio would answer a malformed message with INTERNAL, send any exception's text to the caller,
    and not answer at all when a handler raises CancelledError.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(OUR_METHODS):
            return handler

        async def answer(data: bytes, context: Context) -> bytes:
            try:
                response = await handler.unary_unary(self._read(data, handler.request_deserializer), context)
                return self._write(response)
            except TeacherError as error:
                return await _abort(context, error)
            except asyncio.CancelledError as error:
                if _was_cancelled():
                    raise  # the caller went away: nobody to answer
                return await _abort(context, _logged(error))
            except Exception as error:
                return await _abort(context, _logged(error))

        return grpc.unary_unary_rpc_method_handler(answer)

    def _read(self, data: bytes, parse: Callable[[bytes], Message]) -> Message:
        if len(data) > self._max_bytes:
            raise TooLargeError("the request is too large", value=len(data), limit=self._max_bytes)
        try:
            return parse(data)
        except DecodeError:
            raise InvalidRequestError("not a message of this method") from None

    def _write(self, response: Message) -> bytes:
        data = response.SerializeToString()
        if len(data) > self._max_bytes:
            raise TooLargeError(
                "the answers are too large: ask fewer instances at once",
                value=len(data),
                limit=self._max_bytes,
            )
        return data


async def start_grpc(
    pipeline: Pipeline, health: Health, host: str, port: int, max_bytes: int
) -> tuple[grpc.aio.Server, int]:
    """A running server, and the port that it got.

    Raises:
        OSError: the address cannot be listened on.
    """
    server = grpc.aio.server(interceptors=[AnswersEveryCall(max_bytes)], options=_options(max_bytes))
    pb_grpc.add_TeacherServiceServicer_to_server(TeacherService(pipeline), server)
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    served = (pb.DESCRIPTOR, health_pb2.DESCRIPTOR)
    names = [service.full_name for file in served for service in file.services_by_name.values()]
    reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError:
        raise OSError(f"cannot listen on {address}") from None
    await server.start()
    return server, bound


def _options(max_bytes: int) -> list[tuple[str, int]]:
    return [
        # The transport refuses with its own words; up to twice the limit the named error is sent.
        ("grpc.max_receive_message_length", 2 * max_bytes),
        ("grpc.max_send_message_length", max_bytes),
        ("grpc.so_reuseport", 0),  # a port in use must be an error
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5000),
    ]


def _question(request: pb.PredictRequest, seconds: float | None) -> Question:
    named = (instance_from_proto(one, f"instances[{number}]") for number, one in enumerate(request.instances))
    return Question(
        instances=tuple(named),
        want=want_from_proto(request.want) if request.HasField("want") else Want(),
        fingerprint=request.fingerprint,
        vocabulary_hash=request.vocabulary_hash,
        deadline=float("inf") if seconds is None else time.monotonic() + seconds,
    )


def _was_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _logged(error: BaseException) -> TeacherError:
    log.error("a call failed", exc_info=error)
    return as_teacher_error(error)


async def _abort(context: Context, error: TeacherError) -> bytes:
    code = grpc.StatusCode[TABLE[type(error)].grpc_code]
    detail = error_to_proto(error).SerializeToString()
    await context.abort(code, str(error), trailing_metadata=((ERROR_METADATA, detail),))
    raise AssertionError("abort raises")
