"""Streams to a teacher that stay open: each is one question's at a time, then the next one's."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from teacher_api.errors import DeadlineExceededError, InternalError, NotReadyError, error_from_proto
from teacher_api.v1 import teacher_pb2 as pb

Call = grpc.aio.StreamStreamCall[Any, Any]

MOST_QUESTIONS = 64  # of one stream: a replica that came later gets its share with the next one


class Streams:
    """As many as there are questions under way: one for all would be as fast, but ask one replica only."""

    def __init__(self, open_stream: Callable[[], Call], timeout_s: float) -> None:
        self._open, self._timeout_s = open_stream, timeout_s
        self._idle: list[tuple[Call, int]] = []  # with the number of questions that each has answered

    async def ask(self, question: pb.PredictRequest) -> pb.PredictResponse:
        """All answers in one response, in however many messages they come.

        Raises:
            TeacherError: the question was refused or failed, or nobody answered in time.
            grpc.aio.AioRpcError: the stream broke.
        """
        call, answered = self._take()
        try:
            response = await self._in_time(call, answered, question)
        except BaseException:  # the next question opens another stream, perhaps to another replica
            call.cancel()
            raise
        if answered + 1 < MOST_QUESTIONS:
            self._idle.append((call, answered + 1))
        else:
            call.cancel()
        return response

    def _take(self) -> tuple[Call, int]:
        while self._idle:
            call, answered = self._idle.pop()
            if not call.done():
                return call, answered
        return self._open(), 0

    async def _in_time(self, call: Call, number: int, question: pb.PredictRequest) -> pb.PredictResponse:
        try:
            async with asyncio.timeout(self._timeout_s):
                timeout_ms = round(1000 * self._timeout_s)
                await call.write(pb.StreamPredictRequest(id=number, question=question, timeout_ms=timeout_ms))
                return await _answers(call, number, len(question.instances))
        except TimeoutError as error:
            raise DeadlineExceededError("the teacher took too long", limit=f"{self._timeout_s} s") from error
        except asyncio.InvalidStateError as error:  # it ended just now
            raise NotReadyError("the teacher ended the stream") from error


async def _answers(call: Call, number: int, count: int) -> pb.PredictResponse:
    whole = pb.PredictResponse()
    while True:
        part = await call.read()
        if not isinstance(part, pb.StreamPredictResponse):
            raise NotReadyError("the teacher ended the stream")
        if part.id != number:
            raise InternalError("the teacher answered another question", value=part.id, limit=number)
        if part.HasField("error"):
            raise error_from_proto(part.error)
        whole.answers.extend(part.answers)
        whole.fingerprint = part.fingerprint
        if len(whole.answers) >= count:
            return whole
