"""A gRPC server with all that it speaks: the contract, the Open Inference Protocol, health, reflection."""

from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from teacher_api.open_inference import inference_pb2, inference_pb2_grpc
from teacher_api.v1 import teacher_pb2 as pb
from teacher_api.v1 import teacher_pb2_grpc as pb_grpc
from teacher_server.admission import Sizes
from teacher_server.auth import Access
from teacher_server.grpc_api.access import KnowsTheCaller
from teacher_server.grpc_api.interceptor import AnswersEveryCall
from teacher_server.grpc_api.open_inference import GRPCInferenceService
from teacher_server.grpc_api.service import TeacherService
from teacher_server.grpc_api.watched import Watched
from teacher_server.health import Health
from teacher_server.open_inference import OpenInference
from teacher_server.pipeline import Pipeline
from teacher_server.tls import Certificates, Material
from teacher_server.watch import Watch


async def start_grpc(  # noqa: PLR0913  # the parts and their limits
    pipeline: Pipeline,
    access: Access,
    health: Health,
    watch: Watch,
    *,
    address: str,
    sizes: Sizes,
    connection_seconds: int,
    certificates: Certificates | None = None,
) -> tuple[grpc.aio.Server, int]:
    """A running server on `address`, host:port, and the port that it got.

    Raises:
        OSError: the address cannot be listened on.
    """
    interceptors = [Watched(watch), KnowsTheCaller(access), AnswersEveryCall(sizes)]
    server = grpc.aio.server(interceptors=interceptors, options=_options(sizes, connection_seconds))
    pb_grpc.add_TeacherServiceServicer_to_server(TeacherService(pipeline, sizes.answer), server)
    inference = GRPCInferenceService(OpenInference(pipeline, health, sizes.answer))
    inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(inference, server)
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    served = (pb.DESCRIPTOR, inference_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR)
    names = [service.full_name for file in served for service in file.services_by_name.values()]
    reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
    try:
        bound = (
            server.add_secure_port(address, _credentials(certificates))
            if certificates
            else server.add_insecure_port(address)
        )
    except RuntimeError:
        raise OSError(f"cannot listen on {address}") from None
    await server.start()
    return server, bound


def _credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """Asked at each handshake for what has changed since the last."""

    def configuration(found: Material) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(found.key, found.chain)], found.client_ca)

    first = told = certificates.current()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal told
        before, told = told, certificates.current()
        return None if told is before else configuration(told)

    fetch: Any = changed  # its type knows no None, which says that nothing has changed
    return grpc.dynamic_ssl_server_credentials(configuration(first), fetch, certificates.mutual)


def _options(sizes: Sizes, connection_seconds: int) -> list[tuple[str, int]]:
    return [
        # The transport refuses with its own words; up to twice the limit the named error is sent.
        ("grpc.max_receive_message_length", 2 * sizes.request),
        # Of its own accord it lets a caller whom it refuses wait for .1 to 1 s, to slow a flood down; ours
        # are promised an answer within 100 ms.
        ("grpc.http.tarpit_min_duration_ms", 10),
        ("grpc.http.tarpit_max_duration_ms", 50),
        ("grpc.max_send_message_length", sizes.answer),
        ("grpc.so_reuseport", 0),  # a port in use must be an error
        # A client pings each second, to notice a server that hangs.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 500),
        # What runs ends in peace; the new connection begins with a new look at the name's addresses.
        ("grpc.max_connection_age_ms", 1000 * connection_seconds),
    ]
