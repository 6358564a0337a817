"""Between many callers and one model: a bounded queue, and batches of a token budget.

Threads keep the event loop free: one tokenises what arrives; each of the model's lanes, two as a rule,
takes the next batch as soon as it is idle. So a batch is chosen as late as possible, and takes half of the
work that is there: answers and new questions cross the loop while the other lane runs. On a CPU a lane
has half of the threads, which wait less for one another, or all of them while the other is idle.
"""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from teacher_api.errors import (
    DeadlineExceededError,
    InternalError,
    NotReadyError,
    OverloadedError,
    as_teacher_error,
)
from teacher_api.messages import Outputs
from teacher_server.fair_queue import FairQueue
from teacher_server.jobs import Job, Outcome, Taken
from teacher_server.metrics import Metrics
from teacher_server.model import Model
from teacher_server.pace import Pace
from teacher_server.tracing import Untraced

LEAST_RETRY_MS = 50
JOIN_SECONDS = 2.0
LEAST_BATCH = 8  # texts: smaller halves would cost more than the overlap gains
LINGER_SECONDS = 0.002  # beside a lane at work: those just answered ask again, and fill a batch

log = logging.getLogger(__name__)


class Batcher:
    """Answers jobs through one model, callers in turn, each in order of arrival where padding allows."""

    def __init__(
        self,
        model: Model,
        *,
        queue_texts: int,
        batch_tokens: int,
        metrics: Metrics,
        tracer: Untraced,
        on_outcomes: Callable[[Sequence[tuple[Job, Outcome]]], None],
    ) -> None:
        """Starts its threads; to be called on the running event loop.

        Args:
            queue_texts: most texts that wait for the model.
            batch_tokens: most tokens of one model run, padding included.
            on_outcomes: told on the loop of each batch's outcomes, before those who wait for them.
        """
        self._model, self._on_outcomes = model, on_outcomes
        self._metrics, self._tracer = metrics, tracer
        self._queue_texts, self._batch_tokens = queue_texts, batch_tokens
        self._loop = asyncio.get_running_loop()
        self.died: asyncio.Future[None] = self._loop.create_future()
        self._arrivals: queue.SimpleQueue[Sequence[Job] | None] = queue.SimpleQueue()
        self._ready = threading.Condition()  # guards what follows
        self._waiting: FairQueue[Job] = FairQueue()  # tokenised
        self._queued = 0  # submitted and not yet taken, tokenised or not
        self._running = 0  # texts that the model is at
        self._closing = False
        self._pace = Pace()
        metrics.queue_texts.set_function(lambda: self._queued)
        metrics.queue_limit.set(queue_texts)
        metrics.queue_age.set_function(self._oldest_seconds)
        lanes = [(f"model-{number}", self._serve) for number in range(model.lanes)]
        self._threads = [
            threading.Thread(target=self._watched, args=(run,), name=name, daemon=True)
            for name, run in [("tokenise", self._tokenise), *lanes]
        ]
        for thread in self._threads:
            thread.start()

    # ---- on the event loop ----

    def submit(self, jobs: Sequence[Job]) -> None:
        """Takes all jobs or none.

        Raises:
            OverloadedError: the queue is full, or so long that the deadline would pass in it; names the
                time after which it may not be.
            NotReadyError: the model has stopped.
        """
        if self.died.done():
            raise NotReadyError("the model has stopped")
        with self._ready:
            self._check_length(len(jobs))
            self._check_wait(jobs, min(job.deadline for job in jobs) - time.monotonic())
            self._queued += len(jobs)
        self._arrivals.put(jobs)

    def _check_length(self, count: int) -> None:
        if self._queued + count > self._queue_texts:
            raise OverloadedError(
                "the queue is full",
                value=self._queued,
                limit=self._queue_texts,
                retry_after_ms=_hint_ms(self._pace.seconds(self._queued)),
            )

    def _check_wait(self, jobs: Sequence[Job], seconds_left: float) -> None:
        """Better refused now than expired in the queue, or answered when nobody waits. Alone it is tried."""
        ahead = self._running + self._waiting.ahead_of(jobs[0].caller, len(jobs))
        too_late = self._pace.too_late_by(ahead + len(jobs), seconds_left)
        if ahead and seconds_left > 0 and too_late:
            raise OverloadedError(
                "the queue is longer than the deadline allows",
                value=f"{seconds_left + too_late:.2f} s",
                limit=f"{seconds_left:.2f} s",
                retry_after_ms=_hint_ms(too_late),
            )

    def _oldest_seconds(self) -> float:
        with self._ready:
            now = time.monotonic()
            return now - min((job.arrived for job in self._waiting), default=now)

    async def close(self) -> None:
        """Stops all threads after what they are at; one that hangs is left behind."""
        with self._ready:
            self._closing = True
            self._ready.notify_all()
        self._arrivals.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join, JOIN_SECONDS)

    def _deliver(self, jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> None:
        pairs = list(zip(jobs, outcomes, strict=True))
        try:
            self._on_outcomes(pairs)
        finally:  # whatever became of the cache, those who wait get their answers
            for job, outcome in pairs:
                if not job.future.done():
                    job.future.set_result(outcome)

    def _on_death(self) -> None:
        if not self.died.done():
            self.died.set_result(None)

    # ---- on the threads ----

    def _watched(self, run: Callable[[], None]) -> None:
        """A thread that ends before close() is a death, whatever ended it."""
        try:
            run()
        except BaseException:
            log.exception("thread %s died", threading.current_thread().name)
        if not self._closing:
            self._loop.call_soon_threadsafe(self._on_death)

    def _tokenise(self) -> None:
        while (jobs := self._arrivals.get()) is not None:
            failed = self._encode(jobs)
            with self._ready:
                self._waiting.put(job for job in jobs if job not in failed)
                self._queued -= len(failed)
                self._ready.notify_all()
            self._hand_back(list(failed), list(failed.values()))

    def _encode(self, jobs: Sequence[Job]) -> dict[Job, Outcome]:
        """Tokenises together, or one by one if that fails; returns the ones that failed."""
        try:
            for job, encoded in zip(jobs, self._model.encode([job.instance for job in jobs]), strict=True):
                job.encoded = encoded
        except Exception as error:
            if len(jobs) == 1:
                log.warning("tokenising failed: %s", type(error).__name__)
                return {jobs[0]: as_teacher_error(error)}
            return {job: failure for one in jobs for job, failure in self._encode([one]).items()}
        return {}

    def _serve(self) -> None:
        while (taken := self._take()) is not None:
            self._metrics.expired.inc(len(taken.expired))
            late = DeadlineExceededError("the deadline passed in the queue")
            self._hand_back(taken.expired, [late] * len(taken.expired))
            if taken.batch:
                self._run_batch(taken)

    def _take(self) -> Taken | None:
        """Waits for work. None when closing and nothing is left."""
        with self._ready:
            self._ready.wait_for(lambda: self._waiting or self._closing)
            self._ready.wait_for(self._worth_taking, LINGER_SECONDS)
            if not self._waiting:  # the other lane has it
                return None if self._closing else Taken([], [], alone=False, more_waited=False)
            expired = self._waiting.drop_expired(time.monotonic())
            # Half of the work that there is, what the other lane is at included.
            most = max(LEAST_BATCH, (len(self._waiting) + self._running + 1) // 2)
            batch = self._waiting.take(most, self._batch_tokens, padded=not self._model.padding_free)
            alone = not (self._running or self._waiting)
            self._queued -= len(expired) + len(batch)
            self._running += len(batch)
            return Taken(batch, expired, alone=alone, more_waited=bool(self._waiting))

    def _worth_taking(self) -> bool:
        return self._closing or not self._running or len(self._waiting) >= LEAST_BATCH

    def _run_batch(self, taken: Taken) -> None:
        batch, began, started = taken.batch, time.time_ns(), time.perf_counter()
        waited = time.monotonic() - min(job.arrived for job in batch)
        outcomes = self._compute(batch, alone=taken.alone)
        seconds = time.perf_counter() - started
        tokens = [job.encoded.tokens for job in batch]
        padded = sum(tokens) if self._model.padding_free else max(tokens) * len(batch)
        self._tracer.ran(
            (one for job in batch for one in job.asked_by), began, texts=len(batch), tokens=padded
        )
        with self._ready:
            self._running -= len(batch)
            beside = self._model.lanes if taken.more_waited else 1  # so many lanes went at this speed
            self._pace.note(beside * len(batch), seconds, more_waited=taken.more_waited)
        self._hand_back(batch, outcomes)
        self._metrics.ran(tokens, padded, self._batch_tokens, waited=waited, seconds=seconds)

    def _compute(self, batch: Sequence[Job], *, alone: bool) -> list[Outcome]:
        """One forward; halves of the batch if that fails, so that in the end a bad text fails alone."""
        try:
            wants = [job.want for job in batch]
            outputs = self._model.run([job.encoded for job in batch], wants, alone=alone)
            return [_if_finite(out) for _, out in zip(batch, outputs, strict=True)]
        except Exception as error:
            if len(batch) == 1:
                log.exception("the model failed on a text", extra=batch[0].ids)
                return [as_teacher_error(error)]
            half = len(batch) // 2
            return self._compute(batch[:half], alone=alone) + self._compute(batch[half:], alone=alone)

    def _hand_back(self, jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> None:
        if jobs:
            self._loop.call_soon_threadsafe(self._deliver, jobs, outcomes)


def _hint_ms(seconds: float) -> int:
    return max(LEAST_RETRY_MS, round(1000 * seconds))


def _if_finite(outputs: Outputs) -> Outcome:
    arrays = (outputs.logits, *outputs.hidden.values())
    if all(array is None or np.isfinite(array).all() for array in arrays):
        return outputs
    log.warning("the model gave numbers that are not finite")
    return InternalError("the teacher's answer to this text is not finite")
