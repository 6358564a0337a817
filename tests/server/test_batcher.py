"""How batches are formed, on a model that only records them."""

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest

from teacher_api.errors import DeadlineExceededError, InvalidRequestError, OverloadedError
from teacher_api.messages import Instance, Outputs, Want
from teacher_server.batcher import LEAST_BATCH, Batcher
from teacher_server.jobs import Job
from teacher_server.metrics import Metrics
from teacher_server.model import Encoded
from teacher_server.pace import Pace
from teacher_server.tracing import Untraced


class RecordingModel:
    """A token a character; waits in `run` for `go`; keeps the lengths of each batch."""

    def __init__(self, padding_free: bool, lanes: int) -> None:
        self.padding_free, self.lanes = padding_free, lanes
        self.go, self.entered = threading.Event(), threading.Event()
        self.batches: list[list[int]] = []
        self.alone: list[bool] = []

    def encode(self, instances: Sequence[Instance]) -> list[Encoded]:
        if any(instance.text == "?" for instance in instances):
            raise InvalidRequestError("bad", field="instances[0].tokens.ids")
        return [Encoded([1] * len(instance.text)) for instance in instances]

    def run(self, encoded: Sequence[Encoded], wants: Sequence[Want], *, alone: bool) -> list[Outputs]:
        self.batches.append([one.tokens for one in encoded])
        self.alone.append(alone)
        self.entered.set()
        assert self.go.wait(10)
        return [Outputs(np.full(2, one.tokens, np.float32)) for one in encoded]


class Bench:
    """A batcher around a model that is busy with one text until told to go."""

    def __init__(
        self, *, padding_free: bool, batch_tokens: int = 100, queue_texts: int = 1000, lanes: int = 1
    ) -> None:
        self.model: Any = RecordingModel(padding_free, lanes)
        self.delivered: list[Job] = []
        self.batcher = Batcher(
            self.model,
            queue_texts=queue_texts,
            batch_tokens=batch_tokens,
            metrics=Metrics(),
            tracer=Untraced(),
            on_outcomes=lambda pairs: self.delivered.extend(job for job, _ in pairs),
        )

    async def occupy(self) -> Job:
        (job,) = self.submit([1])
        await asyncio.to_thread(self.model.entered.wait, 10)
        return job

    def submit(self, lengths: Sequence[int], deadline: float = math.inf, caller: str = "") -> list[Job]:
        future = asyncio.get_running_loop().create_future
        asked = [Instance("x" * length) for length in lengths]
        jobs = [Job(b"", instance, Want(), future(), deadline, caller=caller) for instance in asked]
        self.batcher.submit(jobs)
        return jobs

    async def finish(self, *jobs: Job) -> list[Any]:
        """Lets the model run, once all that was submitted is tokenised."""
        async with asyncio.timeout(5):
            await self.tokenised(len(jobs))
            self.model.go.set()
            return await asyncio.gather(*[job.future for job in jobs])

    async def tokenised(self, count: int) -> None:
        while len(self.batcher._waiting) < count:  # noqa: ASYNC110  # a thread's state
            await asyncio.sleep(0.001)


@pytest.fixture
async def close() -> AsyncIterator[list[Bench]]:
    benches: list[Bench] = []
    yield benches
    for bench in benches:
        bench.model.go.set()
        await bench.batcher.close()


async def test_without_padding_first_come_first_served(close: list[Bench]) -> None:
    bench = Bench(padding_free=True)
    close.append(bench)
    await bench.occupy()
    await bench.finish(*bench.submit([60, 10, 40, 30, 50, 20] * 4))
    flat = [length for batch in bench.model.batches[1:] for length in batch]
    assert flat == [60, 10, 40, 30, 50, 20] * 4
    assert all(sum(batch) <= 100 for batch in bench.model.batches)


async def test_with_padding_lengths_are_grouped_and_the_oldest_goes(close: list[Bench]) -> None:
    bench = Bench(padding_free=False)
    close.append(bench)
    await bench.occupy()
    lengths = [50, *[5] * 30, 48, *[5] * 30]
    await bench.finish(*bench.submit(lengths))
    batches = bench.model.batches[1:]
    assert sorted(batches[0]) == [48, 50]  # the oldest, and its nearest in length
    assert all(set(batch) == {5} for batch in batches[1:])
    assert all(len(batch) * max(batch) <= 100 for batch in batches)


async def test_a_batch_takes_half_of_the_work(close: list[Bench]) -> None:
    """So that the other half runs while answers and new questions cross the loop."""
    bench = Bench(padding_free=True, batch_tokens=10_000)
    close.append(bench)
    await bench.occupy()
    await bench.finish(*bench.submit([2] * 39))
    assert len(bench.model.batches[1]) == 20
    assert min(len(batch) for batch in bench.model.batches[1:-1]) >= LEAST_BATCH


async def test_two_lanes_share_the_work_and_one_alone_has_all_threads(close: list[Bench]) -> None:
    bench = Bench(padding_free=True, batch_tokens=10_000, lanes=2)
    close.append(bench)
    await bench.occupy()
    assert bench.model.alone == [True]
    later = bench.submit([2] * 20)
    while len(bench.model.batches) < 2:  # noqa: ASYNC110  # a thread's state
        await asyncio.sleep(0.001)
    assert len(bench.model.batches[1]) == 11  # half of the 21 that wait and run
    await bench.tokenised(9)
    bench.model.go.set()
    await asyncio.gather(*[job.future for job in later])
    assert [len(batch) for batch in bench.model.batches[2:]] in ([9], [8, 1])
    assert bench.model.alone[1] is False
    (last,) = bench.submit([2])
    await last.future
    assert bench.model.alone[-1] is True


async def test_a_lane_waits_a_moment_for_more_beside_one_at_work(close: list[Bench]) -> None:
    """Those who were just answered ask again within milliseconds; a lone text is never kept waiting."""
    bench = Bench(padding_free=True, lanes=2)
    close.append(bench)
    await bench.occupy()
    jobs = bench.submit([3])
    async with asyncio.timeout(5):
        while len(bench.model.batches) < 2:  # noqa: ASYNC110  # it does not wait for company for ever
            await asyncio.sleep(0.001)
    bench.model.go.set()
    await asyncio.gather(*[job.future for job in jobs])
    assert bench.model.batches == [[1], [3]]


async def test_longer_than_the_budget_runs_alone(close: list[Bench]) -> None:
    bench = Bench(padding_free=True, batch_tokens=10)
    close.append(bench)
    await bench.occupy()
    await bench.finish(*bench.submit([3, 50, 3]))
    assert bench.model.batches[1:] == [[3], [50], [3]]


async def test_expired_and_abandoned_never_run(close: list[Bench]) -> None:
    bench = Bench(padding_free=True)
    close.append(bench)
    await bench.occupy()
    (expired,) = bench.submit([7], deadline=0.0)
    (abandoned,) = bench.submit([8])
    (alive,) = bench.submit([9])
    abandoned.future.cancel()
    bench.model.go.set()
    assert isinstance(await expired.future, DeadlineExceededError)
    await alive.future
    assert bench.model.batches == [[1], [9]]


async def test_bound_counts_texts_and_is_freed(close: list[Bench]) -> None:
    bench = Bench(padding_free=True, queue_texts=10)
    close.append(bench)
    await bench.occupy()
    first = bench.submit([1] * 8)
    with pytest.raises(OverloadedError) as refused:
        bench.submit([1] * 3)
    assert (refused.value.value, refused.value.limit) == ("8", "10")
    assert refused.value.retry_after_ms > 0
    await bench.finish(*first, *bench.submit([1] * 2))
    bench.submit([1] * 10)


async def test_a_wait_beyond_the_deadline_is_refused_at_once(close: list[Bench]) -> None:
    bench = Bench(padding_free=True)
    close.append(bench)
    now = time.monotonic()
    bench.batcher._pace = measured(texts=1, seconds=10)
    bench.submit([1], deadline=now + 5)  # nothing is ahead of it: it is tried
    await asyncio.to_thread(bench.model.entered.wait, 10)
    queued = bench.submit([1] * 8)
    await bench.tokenised(8)
    with pytest.raises(OverloadedError, match="longer than the deadline") as refused:
        bench.submit([1], deadline=now + 60)  # ten texts, with prudence 125 s
    assert 60_000 <= refused.value.retry_after_ms <= 75_000
    queued += bench.submit([1], deadline=now + 60, caller="another")  # three: its turn comes before
    await bench.finish(*queued, *bench.submit([1], deadline=now + 600))


async def test_no_deadline_is_too_near_while_no_speed_is_known(close: list[Bench]) -> None:
    bench = Bench(padding_free=True)
    close.append(bench)
    await bench.occupy()
    await bench.finish(*bench.submit([1] * 500), *bench.submit([1], deadline=time.monotonic() + 5))


def measured(texts: int, seconds: float) -> Pace:
    pace = Pace()
    for _ in range(50):
        pace.note(texts, seconds, more_waited=True)
    return pace


def test_pace_is_that_of_full_batches_only() -> None:
    pace = measured(texts=100, seconds=1)
    pace.note(1, 0.1, more_waited=False)  # small for want of work: says nothing of a queue
    assert pace.seconds(100) == pytest.approx(1, abs=1e-3)
    pace.note(20, 0.1, more_waited=False)  # but one that is faster than all shows what can be done
    assert pace.seconds(120) == pytest.approx(1, abs=1e-3)
    assert pace.too_late_by(120, 1.0) == pytest.approx(0.25, abs=1e-3)
    assert pace.too_late_by(120, 1.3) == 0
    assert Pace().too_late_by(10**6, 0.001) == 0


async def test_one_that_cannot_be_tokenised_fails_alone(close: list[Bench]) -> None:
    bench = Bench(padding_free=True)
    close.append(bench)
    bench.model.go.set()
    jobs = [
        Job(b"", Instance(text), Want(), asyncio.get_running_loop().create_future(), math.inf)
        for text in ("ab", "?", "abc")
    ]
    bench.batcher.submit(jobs)
    good, bad, other = await asyncio.gather(*[job.future for job in jobs])
    assert isinstance(bad, InvalidRequestError)
    assert (good.logits[0], other.logits[0]) == (2, 3)
    assert bench.batcher._queued == 0


async def test_answers_come_even_if_they_cannot_be_kept(close: list[Bench]) -> None:
    bench = Bench(padding_free=True)
    close.append(bench)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    bench.batcher._on_outcomes = out_of_memory
    bench.model.go.set()
    (job,) = bench.submit([3])
    async with asyncio.timeout(5):
        assert isinstance(await job.future, Outputs)


def out_of_memory(_: object) -> None:
    raise MemoryError
