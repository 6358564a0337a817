"""A teacher over gRPC: round-robin over its replicas, leaving out those that are not healthy."""

import asyncio
import json
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from student_trainer.teachers import Options, Teacher, answers_from_response
from student_trainer.teachers.grpc_streams import Streams
from student_trainer.teachers.replicas import look_up_all, one_teacher, target_of
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
REPLICA_S = 5.0  # that one of several replicas has to say what it is; a run begins without those that hang

_SERVICE_CONFIG = {
    # Health checking of the client's side works with round_robin only, not with the default policy.
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": ""},
    "methodConfig": [
        {
            "name": [{"service": "teacher_api.v1.TeacherService"}],
            "retryPolicy": {
                "maxAttempts": 4,  # one replica killed, the next one hung, the third restarting
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                # Another replica may be there. Who is overloaded says when to come back: the Client waits.
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
}

_CHANNEL: list[tuple[str, str | int]] = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Pings notice within 2 s that a server hangs, and its calls are retried elsewhere. Keepalive alone
    # takes a minute: the ping's own time-out must be short as well. A server or proxy that allows fewer
    # pings says so, and gRPC sends fewer.
    ("grpc.keepalive_time_ms", 1_000),
    ("grpc.keepalive_timeout_ms", 900),
    ("grpc.http2.ping_timeout_ms", 900),
    ("grpc.http2.max_pings_without_data", 0),  # no limit: who waits for an answer sends no data
    # A name is looked up again when a connection ends, not more often than this; by default, 30 s.
    ("grpc.dns_min_time_between_resolutions_ms", 2_000),
    # A restarted server is found again within seconds, not after gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
]


class GrpcTeacher(Teacher):
    """The teacher whose replicas listen at `places` (host:port each; one may be a name of many addresses)."""

    def __init__(self, places: Sequence[str], options: Options, *, secure: bool = False) -> None:
        self._places = places
        self._open = partial(_channel, arguments=_arguments(places), options=options, secure=secure)
        self._channel = self._open(target_of(places))
        self._stub = TeacherServiceStub(self._channel)
        self._metadata = (("authorization", f"Bearer {options.api_key}"),) if options.api_key else ()
        self._timeout = options.timeout_s
        self._streams: dict[str, Streams] = {}  # by operation, which is said where a stream begins

    @staticmethod
    def streams(want: Want) -> bool:
        """Whether a stream pays: by a seventh for hidden states that are not pooled, for nothing less."""
        return bool(want.layers) and want.pooling == "none"

    async def describe(self) -> Description:
        """What all replicas are that can be reached now.

        Raises:
            FingerprintMismatchError: they are not one teacher; names two that differ.
        """
        addresses = await look_up_all(self._places)
        if len(addresses) > 1:
            told = await asyncio.gather(*map(self._describe_at, addresses), return_exceptions=True)
            return one_teacher(dict(zip(addresses, told, strict=True)), listed=len(self._places) > 1)
        call = self._stub.Describe(pb.DescribeRequest(), timeout=self._timeout, metadata=self._metadata)
        return description_from_proto(await _result(call))

    async def _describe_at(self, address: str) -> Description:
        """What one replica is, asked over a connection of its own."""
        scheme = "ipv6" if address.startswith("[") else "ipv4"
        async with self._open(f"{scheme}:{address}") as channel:
            seconds = min(REPLICA_S, self._timeout)
            call = TeacherServiceStub(channel).Describe(
                pb.DescribeRequest(), timeout=seconds, metadata=self._metadata
            )
            return description_from_proto(await _result(call))

    async def predict(
        self, instances: Sequence[Instance], want: Want, fingerprint: str, operation: str = ""
    ) -> list[Answer]:
        try:
            request = request_to_proto(instances, want, fingerprint)
        except ValueError as error:  # half a surrogate pair, a layer below 0: protobuf has no room for them
            raise InvalidRequestError(f"the question cannot travel: {error}", field="instances") from error
        if self.streams(want):
            response = await _result(self._stream(operation).ask(request))
        else:
            call = self._stub.Predict(request, timeout=self._timeout, metadata=self._told(operation))
            response = await _result(call)
        return answers_from_response(response, len(instances), fingerprint)

    def _told(self, operation: str) -> tuple[tuple[str, str], ...]:
        return (*self._metadata, ("operation-id", operation)) if operation else self._metadata

    def _stream(self, operation: str) -> Streams:
        def begin() -> Any:
            return self._stub.StreamPredict(metadata=self._told(operation))

        return self._streams.setdefault(operation, Streams(begin, self._timeout))

    async def usage(self) -> Usage:
        call = self._stub.GetUsage(pb.GetUsageRequest(), timeout=self._timeout, metadata=self._metadata)
        return usage_from_proto(await _result(call))

    async def close(self) -> None:
        await self._channel.close()


def _arguments(places: Sequence[str]) -> list[tuple[str, str | int]]:
    return [
        *_CHANNEL,
        ("grpc.default_authority", places[0]),  # for which every replica's certificate must stand
        ("grpc.enable_http_proxy", int(len(places) == 1)),  # a proxy could not tell the listed ones apart
    ]


def _channel(
    target: str, arguments: list[tuple[str, str | int]], options: Options, secure: bool
) -> grpc.aio.Channel:
    if not secure:
        return grpc.aio.insecure_channel(target, arguments)
    files = (options.ca_file, options.certificate_key, options.certificate)
    trusted, key, chain = (path.read_bytes() if path else None for path in files)
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(trusted, key, chain), arguments)


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
