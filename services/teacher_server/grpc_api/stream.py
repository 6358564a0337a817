"""One StreamPredict: many questions under way at once, as many as its window holds."""

import asyncio
import contextlib
from collections.abc import AsyncIterable, Iterator, Sequence

import grpc

from teacher_api.errors import TeacherError, TooLargeError, error_to_proto
from teacher_api.messages import Answer, answer_to_proto, most_bytes
from teacher_api.v1 import teacher_pb2 as pb
from teacher_server.admission import Question
from teacher_server.failures import of_the_table
from teacher_server.grpc_api.interceptor import Context
from teacher_server.grpc_api.questions import question_of
from teacher_server.pipeline import Pipeline

WINDOW_MESSAGES = 4  # of the largest size
WINDOW_REQUESTS = 2  # of the most instances, however small their answers: a stream shall not fill the queue
PART_BYTES = 2**20  # of answers in one message
HEADERS_BYTES = 1024  # of a message, beside its tensors


class Stream:
    """Reads on while there is room in its window: for the texts and, at their largest, the answers of all
    questions that are under way, or whose answers the caller has not read."""

    def __init__(self, pipeline: Pipeline, context: Context, max_bytes: int) -> None:
        self._pipeline, self._context, self._max_bytes = pipeline, context, max_bytes
        self._window = _Window(WINDOW_MESSAGES * max_bytes)
        self._turn = asyncio.Lock()  # gRPC takes one message at a time

    async def serve(self, requests: AsyncIterable[pb.StreamPredictRequest]) -> None:
        """Until the caller sends no more, and all is answered.

        Raises:
            InvalidRequestError: a message could not be read; those before it are answered.
        """
        unreadable: TeacherError | None = None
        async with asyncio.TaskGroup() as tasks:
            try:
                async for request in requests:
                    await self._begin(request, tasks)
            except TeacherError as error:
                unreadable = error
        if unreadable:
            raise unreadable

    async def _begin(self, request: pb.StreamPredictRequest, tasks: asyncio.TaskGroup) -> None:
        try:
            question = question_of(request.question, self._seconds(request), self._pipeline.description)
            room = self._room(question, request.ByteSize())
        except TeacherError as error:
            await self._refuse(request.id, error)
            return
        await self._window.take(room)
        tasks.create_task(self._answer(request.id, question, room))

    async def _answer(self, number: int, question: Question, room: int) -> None:
        try:
            with of_the_table():
                answers = await self._pipeline.predict(question)
            for part in self._parts(answers):
                await self._send(number, part)
        except TeacherError as error:
            await self._refuse(number, error)
        finally:
            self._window.give_back(room)

    def _seconds(self, request: pb.StreamPredictRequest) -> float | None:
        """How long the caller waits: for this question, and for the stream."""
        limits = [self._context.time_remaining(), request.timeout_ms / 1000 or None]
        return min((seconds for seconds in limits if seconds is not None), default=None)

    def _room(self, question: Question, request_bytes: int) -> int:
        """What a question may take in the window, at most all of it.

        Raises:
            TooLargeError: several instances may have answers larger than that together; one alone is tried.
        """
        teacher, count, size = self._pipeline.description, len(question.instances), self._window.size
        least = size // (WINDOW_REQUESTS * teacher.max_instances)
        room = request_bytes + count * max(least, most_bytes(question.want, teacher))
        if room > size and count > 1:
            raise TooLargeError(
                "the answers may be too large: ask fewer instances at once",
                field="instances",
                value=room,
                limit=size,
            )
        return min(room, size)

    def _parts(self, answers: Sequence[Answer]) -> Iterator[list[Answer]]:
        """The same answers in parts that are quick to write, each with one at least."""
        part: list[Answer] = []
        size = 0
        for answer in map(self._sendable, answers):
            more = answer.outputs.nbytes if answer.outputs else 0
            if part and size + more > PART_BYTES:
                yield part
                part, size = [], 0
            part.append(answer)
            size += more
        yield part

    def _sendable(self, answer: Answer) -> Answer:
        """The answer, or an error in its place if no message holds it."""
        size = HEADERS_BYTES + (answer.outputs.nbytes if answer.outputs else 0)
        if size <= self._max_bytes:
            return answer
        error = TooLargeError(
            "the answer is too large: want fewer layers, or float16", value=size, limit=self._max_bytes
        )
        return Answer(cached=answer.cached, charged=answer.charged, error=error)

    async def _send(self, number: int, part: Sequence[Answer]) -> None:
        fingerprint = self._pipeline.description.fingerprint
        response = pb.StreamPredictResponse(id=number, fingerprint=fingerprint)
        for answer in part:
            answer_to_proto(answer, response.answers.add())
        await self._write(response)

    async def _refuse(self, number: int, error: TeacherError) -> None:
        await self._write(pb.StreamPredictResponse(id=number, error=error_to_proto(error)))

    async def _write(self, response: pb.StreamPredictResponse) -> None:
        # A caller's leaving may show first in a write that fails: gRPC is about to cancel this call.
        async with self._turn:
            with contextlib.suppress(grpc.aio.InternalError):
                await self._context.write(response)


class _Window:
    """So many bytes, for one who takes and many who give back."""

    def __init__(self, size: int) -> None:
        self.size = self._free = size
        self._freed = asyncio.Event()

    async def take(self, room: int) -> None:
        while self._free < room:
            self._freed.clear()
            await self._freed.wait()
        self._free -= room

    def give_back(self, room: int) -> None:
        self._free += room
        self._freed.set()
