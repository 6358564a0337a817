"""Who calls: known before any method reads a message, whatever the method."""

from typing import Any

import grpc

from teacher_api.errors import UnauthenticatedError
from teacher_server.auth import CALLER, OPERATION, Access
from teacher_server.grpc_api.interceptor import Context, told

# Whoever asks these learns whether the server is well; any other method needs a key.
OPEN_METHODS = frozenset(
    (
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/inference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ServerReady",
    )
)


class KnowsTheCaller(grpc.aio.ServerInterceptor):
    """Notes who calls, and within which operation; refuses whom it does not know."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        if handler and handler_call_details.method not in OPEN_METHODS:
            said = dict(handler_call_details.invocation_metadata)
            try:
                CALLER.set(self._access.authenticate(said.get("authorization", "")).name)
            except UnauthenticatedError as error:
                return _refusing(error)
            OPERATION.set(said.get("operation-id", ""))
        return handler


def _refusing(error: UnauthenticatedError) -> Any:
    """A handler for a method of any kind: on the wire a single message is a stream of one."""

    async def refuse(_: Any, context: Context) -> None:
        async with told(context):
            raise error

    return grpc.stream_stream_rpc_method_handler(refuse)
