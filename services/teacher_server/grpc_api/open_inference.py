"""The Open Inference Protocol over gRPC: what it asks is answered in teacher_server.open_inference."""

from teacher_api.open_inference import inference_pb2 as pb
from teacher_api.open_inference import inference_pb2_grpc as pb_grpc
from teacher_server.grpc_api.interceptor import Context
from teacher_server.open_inference import OpenInference


class GRPCInferenceService(pb_grpc.GRPCInferenceServiceServicer):
    """A line a method."""

    def __init__(self, served: OpenInference) -> None:
        self._served = served

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._served.ready)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        return pb.ModelReadyResponse(ready=self._served.model_ready(request.name, request.version))

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        return self._served.server_metadata()

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        return self._served.model_metadata(request.name, request.version)

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        return await self._served.infer(request, context.time_remaining())
