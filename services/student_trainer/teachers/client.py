"""Any number of questions to one teacher: split, sent side by side, asked again when it is busy or away."""

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from student_trainer.teachers import Options, Teacher, connect
from teacher_api.errors import TABLE, InternalError, InvalidRequestError, NotReadyError, TeacherError
from teacher_api.messages import Answer, Description, Instance, Outputs, Usage, Want, misfit, most_bytes

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
WHY_NOT = (
    "is it there, and does it speak TLS as the address says (grpcs://, https://)? "
    "For certificates set STUDENT_TEACHER_CA and STUDENT_TEACHER_CERTIFICATE"
)
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"  # in both transports' words: of another authority or name, or expired
MAX_BYTES = 5 * 2**20  # of one request or its answer: below the 6 and 8 MiB that they may have


@dataclass(frozen=True)
class Patience:
    """How long a teacher that is busy or away is waited for.

    Attributes:
        connect_seconds: for its first word: a wrong address is found out before long.
        seconds: from a request's first refusal to its last try: enough for a server to be restarted.
        in_flight: requests under way at once.
        jitter: what makes pauses differ between trainers; never the run's own generator.
    """

    seconds: float = 300.0
    connect_seconds: float = 60.0
    in_flight: int = 4
    jitter: random.Random = field(default_factory=random.Random)


class Client:
    """One teacher, pinned by its fingerprint from the first description on."""

    def __init__(self, teacher: Teacher, description: Description, patience: Patience) -> None:
        self.description = description
        self._teacher = teacher
        self._patience = patience
        self._slots = asyncio.Semaphore(patience.in_flight)

    @classmethod
    async def connect(
        cls, url: str, options: Options | None = None, patience: Patience | None = None
    ) -> Self:
        """Opens the teacher at `url` and asks what it is.

        Raises:
            TeacherUrlError: the URL has none of the accepted forms.
            TeacherError: the teacher could not be reached within the patience, or refused.
        """
        return await cls.over(connect(url, options), patience)

    @classmethod
    async def over(cls, teacher: Teacher, patience: Patience | None = None) -> Self:
        """The same around a transport that is open already; closes it if it does not describe itself."""
        patience = patience or Patience()
        tries = _Tries(patience, min(patience.connect_seconds, patience.seconds))
        while True:
            try:
                return cls(teacher, await teacher.describe(), patience)
            except TeacherError as error:
                hopeless = UNTRUSTED in error.message or not _may_pass(error)
                if hopeless or not await tries.pause([error]):
                    await teacher.close()
                    if isinstance(error, NotReadyError):  # a broken handshake does not say what to do
                        raise NotReadyError(f"{error.message}; {WHY_NOT}") from error
                    raise

    async def ask(self, instances: Sequence[Instance], want: Want, operation: str = "") -> list[Answer]:
        """One answer for each instance, in their order; what failed in the end has its error there.

        Raises:
            InvalidRequestError: an instance is too long or cannot travel. Names its row; nothing was sent.
        """
        for row, instance in enumerate(instances):
            self._check(row, instance)
        split = self._split(instances, want)
        parts = await asyncio.gather(*(self._ask(part, want, operation) for part in split))
        return [answer for part in parts for answer in part]

    def refuse_beyond(self, want: Want) -> None:
        """Raises WantError for outputs that this teacher never gives. Asks nothing."""
        self._teacher.refuse_beyond(want, self.description)

    def refuse_unknown(self, rows: Sequence[Instance]) -> None:
        """Raises WantError if it has no answer about some of the training rows. Asks nothing."""
        self._teacher.refuse_unknown(rows)

    async def usage(self) -> Usage:
        """What this caller has asked and been charged, by the teacher's own count."""
        return await self._teacher.usage()

    async def close(self) -> None:
        await self._teacher.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _check(self, row: int, instance: Instance) -> None:
        where, limit = f"instances[{row}].text", self.description.max_characters
        if instance.characters > limit:
            raise InvalidRequestError(
                "the text is too long", field=where, value=instance.characters, limit=limit
            )
        try:
            _bytes(instance)
        except UnicodeEncodeError as error:
            raise InvalidRequestError("the text has half a surrogate pair", field=where) from error

    def _split(self, instances: Sequence[Instance], want: Want) -> list[list[Instance]]:
        """Parts that pass neither the teacher's instances nor a message's bytes, in either direction."""
        most = min(self.description.max_instances, MAX_BYTES // most_bytes(want, self.description) or 1)
        parts: list[list[Instance]] = []
        room = 0
        for instance in instances:
            size = _bytes(instance)
            if not parts or len(parts[-1]) >= most or size > room:
                parts.append([])
                room = MAX_BYTES
            parts[-1].append(instance)
            room -= size
        return parts

    async def _ask(self, part: list[Instance], want: Want, operation: str) -> list[Answer]:
        """One part, its failed instances asked again for as long as that may help and patience lasts."""
        async with self._slots:
            answers = await self._try(part, want, operation)
            tries = _Tries(self._patience, self._patience.seconds)
            while errors := _passing(answers):
                if not await tries.pause(list(errors.values())):
                    break
                again = await self._try([part[row] for row in errors], want, operation)
                for row, answer in zip(errors, again, strict=True):
                    answers[row] = answer
            return answers

    async def _try(self, part: list[Instance], want: Want, operation: str) -> list[Answer]:
        try:
            answers = await self._teacher.predict(part, want, self.description.fingerprint, operation)
        except TeacherError as error:
            return [Answer(error=error)] * len(part)
        return [self._fitting(answer, want) for answer in answers]

    def _fitting(self, answer: Answer, want: Want) -> Answer:
        """The answer, or an error in the place of outputs that are not what was asked for."""
        if answer.error is not None:
            return answer
        fault = misfit(answer.outputs or Outputs(), want, self.description)
        if not fault:
            return answer
        error = InternalError(f"the teacher's answer does not fit the question: {fault}")
        return Answer(charged=answer.charged, error=error)


class _Tries:
    """The pauses between the tries of one request: longer each time, at random, until patience ends."""

    def __init__(self, patience: Patience, seconds: float) -> None:
        self._now = asyncio.get_running_loop().time
        self._end = self._now() + seconds
        self._longest = FIRST_PAUSE_S
        self._jitter = patience.jitter

    async def pause(self, errors: Sequence[TeacherError]) -> bool:
        """Waits as long as the teacher said and somewhat more; False, at once, if patience ends first."""
        hint = max(error.retry_after_ms for error in errors) / 1000
        seconds = hint + self._jitter.uniform(self._longest / 2, self._longest)
        self._longest = min(2 * self._longest, LONGEST_PAUSE_S)
        if self._now() + seconds > self._end:
            return False
        logger.warning("asking the teacher again in %.1f s: %s", seconds, errors[0])
        await asyncio.sleep(seconds)
        return True


def _may_pass(error: TeacherError) -> bool:
    return TABLE[type(error)].retry


def _passing(answers: Sequence[Answer]) -> dict[int, TeacherError]:
    """Row -> error, of those that may succeed when asked again."""
    errors = {row: answer.error for row, answer in enumerate(answers) if answer.error is not None}
    return {row: error for row, error in errors.items() if _may_pass(error)}


def _bytes(instance: Instance) -> int:
    """UTF-8 bytes, or those of the token ids, of what is sent."""
    ids = len(instance.token_ids or ()) + len(instance.type_ids)
    return 8 * ids + len(instance.text.encode()) + len((instance.text_pair or "").encode())
