"""The gRPC face: protobuf in, pipeline, protobuf out; every call is answered from the error table."""

from teacher_server.grpc_api.server import start_grpc

__all__ = ["start_grpc"]
