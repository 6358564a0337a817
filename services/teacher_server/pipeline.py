"""The straight path of a question: admit -> cache -> join -> batch -> model -> cache -> meter."""

import asyncio
import contextlib
import dataclasses
import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from teacher_api.errors import (
    DeadlineExceededError,
    NotReadyError,
    OverloadedError,
    TeacherError,
)
from teacher_api.identity import ContentKeys
from teacher_api.messages import Answer, Description, Outputs, Usage, Want, misfit
from teacher_server.admission import Question, check
from teacher_server.batcher import Batcher
from teacher_server.cache import Cache
from teacher_server.jobs import Job, Outcome, Seat
from teacher_server.model import Model
from teacher_server.quota import Quota, Reservation
from teacher_server.tracing import current
from teacher_server.watch import Watch

JOIN_MARGIN_SECONDS = 0.05  # a job this near to its deadline may be dropped any moment: nobody joins it
INSTANCE = re.compile(r"^instances\[\d+\]")
OF_WHOLE_REQUEST = (OverloadedError, NotReadyError, DeadlineExceededError)


class Pipeline:
    """Answers questions to one teacher. All methods run on the event loop."""

    def __init__(  # noqa: PLR0913  # the parts and their limits
        self,
        model: Model,
        description: Description,
        quota: Quota,
        cache: Cache,
        watch: Watch,
        *,
        queue_texts: int,
        batch_tokens: int,
        max_requests: int,
    ) -> None:
        self.description = description
        metrics = self._metrics = watch.metrics
        self._quota, self._cache, self._max_requests = quota, cache, max_requests
        self._in_flight: dict[bytes, Job] = {}
        self._open, self._draining = 0, False
        self._idle = asyncio.Event()
        self._idle.set()
        self._usage: defaultdict[str, Counter[str]] = defaultdict(Counter)  # by caller, and fields of Usage
        self._batcher = Batcher(
            model,
            queue_texts=queue_texts,
            batch_tokens=batch_tokens,
            metrics=metrics,
            tracer=watch.tracer,
            on_outcomes=self._settle,
        )
        self.died = self._batcher.died
        self.died.add_done_callback(lambda _: self._fail_all())
        metrics.open.set_function(lambda: self._open)
        metrics.cache_up.set_function(lambda: cache.available)

    async def predict(self, question: Question) -> list[Answer]:
        """Answers in the order of the instances; one that fails alone carries its error.

        Raises:
            TeacherError: the whole request is refused or failed; see the error table.
        """
        with self._admitted(question):
            keys = self._keys(question)
            kept = await self._looked_up(keys, question.want)
            missing = [outputs is None for outputs in kept]
            async with self._quota.reserved(question, keys, missing) as reservation:
                seats = self._seats(question, keys, kept)
                try:
                    await self._wait([seat for seat in seats if isinstance(seat, Seat)], question.deadline)
                    answered = [self._answer(number, seat) for number, seat in enumerate(seats)]
                except BaseException:
                    self._abandon(question, reservation, seats)
                    raise
                charged = await reservation.settle([how == "charged" for how, _ in answered])
            return self._metered(question.caller, answered, charged)

    async def usage(self, caller: str) -> Usage:
        """What a caller has asked since the server started, been charged, and has left."""
        return await self._quota.usage(caller, self.counts())

    def counts(self) -> dict[str, dict[str, int]]:
        """Caller -> its counts since the server started, by the fields of Usage."""
        return {caller: dict(counts) for caller, counts in self._usage.items()}

    async def drain(self, seconds: float) -> None:
        """Refuses what comes from now on, and waits for what runs, at most this long."""
        self._draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()

    async def close(self) -> None:
        """Stops the model's threads, and finishes what the cache is writing."""
        await self._batcher.close()
        await self._cache.close()
        await self._quota.close()

    # ---- admit ----

    @contextlib.contextmanager
    def _admitted(self, question: Question) -> Iterator[None]:
        """Counts the request as open while it lasts, and notes why it was refused if it is."""
        self._open += 1
        self._idle.clear()
        try:
            with current().part("admit") as part:
                part.note(texts=len(question.instances))
                self._admit(question)
            yield
        except TeacherError as error:
            self._metrics.refusals.labels(error.code).inc()
            raise
        finally:
            self._open -= 1
            if not self._open:
                self._idle.set()

    def _admit(self, question: Question) -> None:
        if self._draining:
            raise NotReadyError("draining: ask another replica")
        if self._open > self._max_requests:
            raise OverloadedError("too many requests", limit=self._max_requests, retry_after_ms=1000)
        self._quota.permit(question)
        check(question, self.description)

    def _keys(self, question: Question) -> list[bytes]:
        teacher = self.description
        keys = ContentKeys(teacher.fingerprint, teacher.max_length, question.want)
        return [keys.of(instance) for instance in question.instances]

    async def _looked_up(self, keys: Sequence[bytes], want: Want) -> list[Outputs | None]:
        with current().part("cache") as part, self._metrics.cache_seconds.time():
            found = await self._cache.get_many(keys)
            kept = [self._fitting(outputs, want) for outputs in found]
            hits = len(kept) - kept.count(None)
            part.note(hits=hits, misses=len(kept) - hits)
        self._metrics.lookups.labels("hit").inc(hits)
        self._metrics.lookups.labels("miss").inc(len(kept) - hits)
        return kept

    def _fitting(self, kept: Outputs | None, want: Want) -> Outputs | None:
        """None for what is intact and yet no answer to this: whoever else writes to Redis may err."""
        return None if kept is None or misfit(kept, want, self.description) else kept

    # ---- join ----

    def _seats(
        self, question: Question, keys: Sequence[bytes], kept: Sequence[Outputs | None]
    ) -> list[Outputs | Seat]:
        """What is known already, or a seat at a job: one under way, or a new one that goes to the batcher."""
        now, asked = time.monotonic(), current()
        fresh: dict[bytes, Job] = {}
        seats: list[Outputs | Seat] = []
        for instance, key, outputs in zip(question.instances, keys, kept, strict=True):
            # It may have been computed while another cache was being asked.
            known = outputs or self._fitting(self._cache.recall(key), question.want)
            if known is not None:
                seats.append(known)
                continue
            job = fresh.get(key) or self._joinable(key, now)
            if job is None:
                future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
                job = fresh[key] = Job(
                    key, instance, question.want, future, question.deadline, caller=question.caller
                )
            job.asked_by.append(asked)
            seats.append(Seat(job))
        self._submit(list(fresh.values()))
        return seats

    def _joinable(self, key: bytes, now: float) -> Job | None:
        job = self._in_flight.get(key)
        return job if job is not None and job.deadline > now + JOIN_MARGIN_SECONDS else None

    def _submit(self, jobs: Sequence[Job]) -> None:
        if jobs:
            self._batcher.submit(jobs)
            self._in_flight.update((job.key, job) for job in jobs)

    async def _wait(self, seats: Sequence[Seat], deadline: float) -> None:
        """Until all jobs are done; a job that nobody waits for any more is cancelled."""
        if not seats:
            return
        since = time.time_ns()
        for seat in seats:
            seat.job.seats.append(seat)
            seat.job.deadline = max(seat.job.deadline, deadline)
        try:
            timeout = None if math.isinf(deadline) else deadline - time.monotonic()
            _, late = await asyncio.wait({seat.job.future for seat in seats}, timeout=timeout)
        finally:
            self._leave(seats)
            current().queued(since)
        if late:
            raise DeadlineExceededError("the deadline passed")

    def _leave(self, seats: Sequence[Seat]) -> None:
        for seat in seats:
            seat.job.seats.remove(seat)
            if not seat.job.seats and seat.job.future.cancel():
                self._drop(seat.job)

    # ---- settle ----

    def _settle(self, outcomes: Sequence[tuple[Job, Outcome]]) -> None:
        """On the account of who waits longest, and into the cache: from here on the question is either in
        flight or remembered.

        Not what everyone has left meanwhile: nobody is charged for it, so whoever asks again is.
        """
        wanted = [(job, out) for job, out in outcomes if job.seats]
        for job, _ in wanted:
            job.payer = job.seats[0]
        self._cache.put_many([(job.key, out) for job, out in wanted if isinstance(out, Outputs)])
        for job, _ in outcomes:
            self._drop(job)

    def _drop(self, job: Job) -> None:
        if self._in_flight.get(job.key) is job:
            del self._in_flight[job.key]

    def _fail_all(self) -> None:
        for job in self._in_flight.values():
            if not job.future.done():
                job.future.set_result(NotReadyError("the model has stopped"))
        self._in_flight.clear()

    # ---- meter ----

    def _abandon(self, question: Question, reservation: Reservation, seats: Sequence[Outputs | Seat]) -> None:
        """An operation pays for what was computed and remembered even if its caller does not get it: asked
        again, it is told so. Without one nobody could be told, and it is free."""
        if question.operation:
            reservation.owed = [isinstance(seat, Seat) and seat.owes for seat in seats]
            self._count(question.caller, Counter(charged=sum(reservation.owed)))

    def _answer(self, number: int, seat: Outputs | Seat) -> tuple[str, Answer]:
        """One instance's answer, and how it came about."""
        if isinstance(seat, Outputs):
            return "cached", Answer(seat, cached=True)
        outcome = seat.job.future.result()
        if isinstance(outcome, OF_WHOLE_REQUEST):
            raise outcome
        if isinstance(outcome, TeacherError):
            return "failed", Answer(error=_placed(outcome, number))
        return ("charged", Answer(outcome)) if seat.pays else ("joined", Answer(outcome, cached=True))

    def _metered(
        self, caller: str, answered: Sequence[tuple[str, Answer]], charged: Sequence[bool]
    ) -> list[Answer]:
        """The answers with their charges; what one operation asks again is told what it has paid."""
        self._count(caller, Counter(how for how, _ in answered))
        told = zip(answered, charged, strict=True)
        return [dataclasses.replace(answer, charged=int(paid)) for (_, answer), paid in told]

    def _count(self, caller: str, counts: Counter[str]) -> None:
        self._usage[caller].update(counts)
        self._usage[caller]["asked"] += counts.total()
        for how, count in counts.items():
            self._metrics.texts.labels(how).inc(count)


def _placed(error: TeacherError, number: int) -> TeacherError:
    """The model saw the instance alone: its error is about this number of the request."""
    if not error.field:
        return error
    field = INSTANCE.sub(f"instances[{number}]", error.field)
    return type(error)(error.message, field=field, value=error.value, limit=error.limit)
