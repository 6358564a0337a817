"""The contract's service: protobuf in, pipeline, protobuf out."""

from collections.abc import AsyncIterable

from teacher_api.messages import answer_to_proto, description_to_proto, usage_to_proto
from teacher_api.v1 import teacher_pb2 as pb
from teacher_api.v1 import teacher_pb2_grpc as pb_grpc
from teacher_server.auth import CALLER
from teacher_server.grpc_api.interceptor import Context
from teacher_server.grpc_api.questions import question_of
from teacher_server.grpc_api.stream import Stream
from teacher_server.pipeline import Pipeline


class TeacherService(pb_grpc.TeacherServiceServicer):
    """A few lines a method."""

    def __init__(self, pipeline: Pipeline, max_bytes: int) -> None:
        self._pipeline, self._max_bytes = pipeline, max_bytes

    async def Describe(self, request: pb.DescribeRequest, context: Context) -> pb.DescribeResponse:
        return description_to_proto(self._pipeline.description)

    async def Predict(self, request: pb.PredictRequest, context: Context) -> pb.PredictResponse:
        teacher = self._pipeline.description
        answers = await self._pipeline.predict(question_of(request, context.time_remaining(), teacher))
        response = pb.PredictResponse(fingerprint=teacher.fingerprint)
        for answer in answers:
            answer_to_proto(answer, response.answers.add())
        return response

    async def StreamPredict(  # type: ignore[override]  # writes by itself; the stub knows iterators only
        self, requests: AsyncIterable[pb.StreamPredictRequest], context: Context
    ) -> None:
        await Stream(self._pipeline, context, self._max_bytes).serve(requests)

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:
        return usage_to_proto(await self._pipeline.usage(CALLER.get()))
