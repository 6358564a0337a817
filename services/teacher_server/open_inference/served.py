"""What the protocol asks of a server, on the way that every question takes."""

from importlib.metadata import version

from teacher_api.errors import NotFoundError
from teacher_api.messages import Description
from teacher_api.open_inference import inference_pb2 as pb
from teacher_server.health import Health
from teacher_server.open_inference.reading import INPUTS, question_of
from teacher_server.open_inference.writing import tensors_of, write
from teacher_server.pipeline import Pipeline

EXTENSIONS = ("binary_tensor_data", "parameters")
PLATFORM = "teacher_server_torch"

TensorMetadata = pb.ModelMetadataResponse.TensorMetadata


class OpenInference:
    """One model, whose version is the teacher's fingerprint."""

    def __init__(self, pipeline: Pipeline, health: Health, max_bytes: int) -> None:
        self._pipeline, self._health, self._max_bytes = pipeline, health, max_bytes

    @property
    def name(self) -> str:
        """Of the one model."""
        return self._pipeline.description.name

    @property
    def version(self) -> str:
        """Of the one model: the teacher's fingerprint."""
        return self._pipeline.description.fingerprint

    @property
    def ready(self) -> bool:
        """Whether the server may be asked."""
        return self._health.ready

    def model_ready(self, name: str, fingerprint: str) -> bool:
        """Whether it may be asked for this model."""
        teacher = self._pipeline.description
        return self.ready and name == teacher.name and fingerprint in ("", teacher.fingerprint)

    def server_metadata(self) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(
            name="teacher-server", version=version("dynamic-kd"), extensions=EXTENSIONS
        )

    def model_metadata(self, name: str, fingerprint: str) -> pb.ModelMetadataResponse:
        """Raises NotFoundError for another model than the one that is served, or another version."""
        teacher = self._pipeline.description
        _check_model(name, fingerprint, teacher)
        return pb.ModelMetadataResponse(
            name=name,
            versions=[teacher.fingerprint],
            platform=PLATFORM,
            inputs=[TensorMetadata(name=text, datatype="BYTES", shape=[-1]) for text in INPUTS],
            outputs=[
                TensorMetadata(name="logits", datatype="FP32", shape=[-1, len(teacher.labels)]),
                TensorMetadata(name="hidden_states", datatype="FP32", shape=[-1, -1, teacher.hidden_size]),
                TensorMetadata(name="mask", datatype="UINT8", shape=[-1, -1]),
            ],
        )

    async def infer(self, request: pb.ModelInferRequest, seconds: float | None) -> pb.ModelInferResponse:
        """Answers all texts; `seconds` is how long the caller waits, None for ever.

        Raises:
            TeacherError: the request is refused, or one of its texts failed; see the error table.
        """
        teacher = self._pipeline.description
        _check_model(request.model_name, request.model_version, teacher)
        question, names = question_of(request, seconds, teacher)
        answers = await self._pipeline.predict(question)
        tensors = tensors_of(answers, question.want, names, self._max_bytes)
        response = write(tensors)
        response.model_name, response.model_version, response.id = (
            teacher.name,
            teacher.fingerprint,
            request.id,
        )
        response.parameters["charged"].int64_param = sum(answer.charged for answer in answers)
        response.parameters["cached"].int64_param = sum(answer.cached for answer in answers)
        return response


def _check_model(name: str, fingerprint: str, teacher: Description) -> None:
    if name != teacher.name:
        raise NotFoundError("no such model is served", field="name", value=name, limit=teacher.name)
    if fingerprint not in ("", teacher.fingerprint):
        raise NotFoundError(
            "the model has another version", field="version", value=fingerprint, limit=teacher.fingerprint
        )
