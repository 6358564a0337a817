"""A teacher over gRPC: round-robin over a name's addresses, leaving out those that are not healthy."""

import json
from collections.abc import Awaitable, Sequence
from typing import TypeVar

import grpc
from google.protobuf.message import DecodeError

from student_trainer.teachers import Options, answers_from_response
from teacher_api.errors import (
    InvalidRequestError,
    TeacherError,
    TooLargeError,
    error_from_grpc,
    error_from_proto,
)
from teacher_api.messages import (
    Answer,
    Description,
    Instance,
    Usage,
    Want,
    description_from_proto,
    request_to_proto,
    usage_from_proto,
)
from teacher_api.v1 import teacher_pb2 as pb
from teacher_api.v1.teacher_pb2_grpc import TeacherServiceStub

T = TypeVar("T")

MAX_MESSAGE_BYTES = 8 * 2**20

_SERVICE_CONFIG = {
    # Health checking of the client's side works with round_robin only, not with the default policy.
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": ""},
    "methodConfig": [
        {
            "name": [{"service": "teacher_api.v1.TeacherService"}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
}

_CHANNEL = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Pings notice a server that hangs; more often than it allows, they would end in GOAWAY. Keepalive
    # alone takes a minute: the ping's own time-out must be short as well.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    # A restarted server is found again within seconds, not after gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
]


class GrpcTeacher:
    """The teacher at `address` (host:port, or a name with many addresses and a port)."""

    def __init__(self, address: str, options: Options, *, secure: bool = False) -> None:
        self._channel = _channel(address, options, secure)
        self._stub = TeacherServiceStub(self._channel)
        self._metadata = (("authorization", f"Bearer {options.api_key}"),) if options.api_key else ()
        self._timeout = options.timeout_s

    async def describe(self) -> Description:
        call = self._stub.Describe(pb.DescribeRequest(), timeout=self._timeout, metadata=self._metadata)
        return description_from_proto(await _result(call))

    async def predict(self, instances: Sequence[Instance], want: Want, fingerprint: str) -> list[Answer]:
        try:
            request = request_to_proto(instances, want, fingerprint)
        except ValueError as error:  # half a surrogate pair, a layer below 0: protobuf has no room for them
            raise InvalidRequestError(f"the question cannot travel: {error}", field="instances") from error
        call = self._stub.Predict(request, timeout=self._timeout, metadata=self._metadata)
        return answers_from_response(await _result(call), len(instances), fingerprint)

    async def usage(self) -> Usage:
        call = self._stub.GetUsage(pb.GetUsageRequest(), timeout=self._timeout, metadata=self._metadata)
        return usage_from_proto(await _result(call))

    async def close(self) -> None:
        await self._channel.close()


def _channel(address: str, options: Options, secure: bool) -> grpc.aio.Channel:
    if not secure:
        return grpc.aio.insecure_channel(address, _CHANNEL)
    trusted = options.ca_file.read_bytes() if options.ca_file else None
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(trusted), _CHANNEL)


async def _result(call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise _teacher_error(error) from error


def _teacher_error(error: grpc.aio.AioRpcError) -> TeacherError:
    told = dict(error.trailing_metadata() or ()).get("teacher-error-bin")
    if isinstance(told, bytes):
        try:
            return error_from_proto(pb.Error.FromString(told))
        except DecodeError:
            pass  # not ours: a proxy's, then
    details = error.details() or ""
    if "larger than max" in details:  # gRPC calls this RESOURCE_EXHAUSTED; waiting would not help
        return TooLargeError(details, limit=MAX_MESSAGE_BYTES)
    return error_from_grpc(error.code().name, details)
