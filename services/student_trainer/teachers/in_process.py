"""A teacher in the trainer's own process: no server, no cache, the same answers."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from student_trainer.teachers import Options, Teacher, TeacherUrlError
from teacher_api.errors import InternalError, TeacherError
from teacher_api.messages import Answer, Description, Instance, Outputs, Usage, Want
from teacher_server.admission import Question, check
from teacher_server.model import Encoded, Model, ModelError

logger = logging.getLogger(__name__)

# Of one forward, padding included. A CPU's caches hold no more with profit; an accelerator wants more.
CPU_TOKENS, ACCELERATOR_TOKENS = 1024, 16_384


class InProcessTeacher(Teacher):
    """The checkpoint in a folder (or of that hub name), run in a thread of its own."""

    def __init__(self, source: str, options: Options) -> None:
        """Loads the model, which takes seconds.

        Raises:
            TeacherUrlError: the checkpoint cannot be loaded; says why.
        """
        try:
            self._model = Model.load(
                source,
                device=options.device,
                dtype=options.dtype,
                max_length=options.max_length,
                threads=options.threads,
            )
        except ModelError as error:
            raise TeacherUrlError(f"teacher 'local:{source}' cannot be loaded: {error}") from error
        self._tokens = CPU_TOKENS if _on_cpu(options.device) else ACCELERATOR_TOKENS
        self._thread = ThreadPoolExecutor(1, "teacher")  # the model runs one batch at a time
        self._answered = self._failed = 0

    async def describe(self) -> Description:
        return self._model.description

    async def predict(
        self, instances: Sequence[Instance], want: Want, fingerprint: str, operation: str = ""
    ) -> list[Answer]:
        check(Question(tuple(instances), want, fingerprint), self._model.description)
        try:
            loop = asyncio.get_running_loop()
            outputs = await loop.run_in_executor(self._thread, self._run, instances, want)
        except TeacherError:
            raise
        except Exception as error:
            self._failed += len(instances)
            logger.exception("the teacher in process failed")
            raise InternalError(f"the teacher in process failed: {error}") from error
        self._answered += len(instances)
        return [Answer(outputs, charged=1) for outputs in outputs]

    async def usage(self) -> Usage:
        """Counts since the model was loaded; every answer is charged, for nothing is cached."""
        asked = self._answered + self._failed
        return Usage(asked=asked, failed=self._failed, charged=self._answered)

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _run(self, instances: Sequence[Instance], want: Want) -> list[Outputs]:
        encoded = self._model.encode(instances)
        found: dict[int, Outputs] = {}
        for rows in _batches(encoded, self._tokens):
            batch = [encoded[row] for row in rows]
            found.update(zip(rows, self._model.run(batch, [want] * len(rows)), strict=True))
        return [found[row] for row in range(len(encoded))]


def _on_cpu(device: str) -> bool:
    return device == "cpu" or (device == "auto" and not torch.accelerator.is_available())


def _batches(encoded: Sequence[Encoded], tokens: int) -> Iterator[list[int]]:
    """Rows in ascending order of length, in batches of at most `tokens` when padded to the longest."""
    batch: list[int] = []
    for row in sorted(range(len(encoded)), key=lambda row: encoded[row].tokens):
        if batch and (len(batch) + 1) * encoded[row].tokens > tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
