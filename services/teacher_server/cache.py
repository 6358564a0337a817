"""Answers by content key: in this process's memory, and in a Redis that many servers share.

Trouble with a cache never changes an answer and never raises: what cannot be read is a miss. Redis
operations are never cancelled half-way, so that no connection is left with another's reply in it, and
every value proves by its seal which question it answers.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol

import numpy as np
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from teacher_api.messages import Outputs
from teacher_api.sealed import seal, unseal
from teacher_api.tensors import Array

Pairs = Sequence[tuple[bytes, Outputs]]

ENTRY_BYTES = 600  # what an entry costs beside its numbers: key, objects, table
SOCKET_SECONDS = 0.2
PATIENCE_SECONDS = 0.25  # the most that a request ever waits for Redis
REST_SECONDS = 2.0  # how long a Redis that failed is left alone
CONNECTIONS = 16
KEY_PREFIX = b"dkd:"

log = logging.getLogger(__name__)


class Cache(Protocol):
    """What the pipeline asks of a cache."""

    async def get_many(self, keys: Sequence[bytes]) -> list[Outputs | None]:
        """The answers in the order of the keys; None for a miss."""

    @property
    def available(self) -> bool:
        """False while the shared part is left alone after a failure."""

    def recall(self, key: bytes) -> Outputs | None:
        """What this process itself remembers, without waiting."""

    def put_many(self, pairs: Pairs) -> None:
        """Remembers at once in this process, and elsewhere as soon as may be."""

    async def close(self) -> None:
        """Waits for what is still being written."""


class MemoryCache:
    """Least recently used answers go first, once there are too many or they are too large."""

    available = True

    def __init__(self, entries: int, max_bytes: int) -> None:
        self._entries, self._max_bytes = entries, max_bytes
        self._kept: OrderedDict[bytes, tuple[Outputs, int]] = OrderedDict()
        self._bytes = 0

    async def get_many(self, keys: Sequence[bytes]) -> list[Outputs | None]:
        return [self.recall(key) for key in keys]

    def recall(self, key: bytes) -> Outputs | None:
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put_many(self, pairs: Pairs) -> None:
        for key, outputs in pairs:
            self._forget(key)
            owned = _owned(outputs)
            size = ENTRY_BYTES + owned.nbytes
            self._kept[key] = (owned, size)
            self._bytes += size
        while self._kept and (len(self._kept) > self._entries or self._bytes > self._max_bytes):
            self._forget(next(iter(self._kept)))

    def _forget(self, key: bytes) -> None:
        _, size = self._kept.pop(key, (None, 0))
        self._bytes -= size

    async def close(self) -> None:
        """Nothing is written elsewhere."""


class Breaker:
    """After a failure no try for REST_SECONDS, then a single one at a time until one succeeds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed_at: float | None = None

    def permits(self) -> bool:
        if self._failed_at is None:
            return True
        if self._clock() < self._failed_at + REST_SECONDS:
            return False
        self._failed_at = self._clock()  # the trial: whoever comes next waits for its outcome
        return True

    @property
    def closed(self) -> bool:
        """Whether the last operation went well."""
        return self._failed_at is None

    def succeeded(self) -> None:
        if self._failed_at is not None:
            log.warning("cache is back")
        self._failed_at = None

    def failed(self, fault: str) -> None:
        """`fault` is for the log: a wrong password and a dead host need different hands."""
        if self._failed_at is None:
            log.warning("cache failed: answering without it", extra={"fault": fault})
        self._failed_at = self._clock()


class RedisCache:
    """One MGET a request behind an in-process memory, and one write a batch."""

    def __init__(self, url: str, front: MemoryCache, ttl_seconds: int = 0) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=SOCKET_SECONDS,
            socket_timeout=SOCKET_SECONDS,
            socket_connect_timeout=SOCKET_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = Redis.from_pool(pool)
        self._front, self._ttl = front, ttl_seconds
        self._breaker = Breaker()
        self._running: set[asyncio.Task[Any]] = set()

    @property
    def available(self) -> bool:
        return self._breaker.closed

    def recall(self, key: bytes) -> Outputs | None:
        return self._front.recall(key)

    async def get_many(self, keys: Sequence[bytes]) -> list[Outputs | None]:
        found = await self._front.get_many(keys)
        missing = [key for key, outputs in zip(keys, found, strict=True) if outputs is None]
        if not missing or not self._breaker.permits():
            return found
        fetched = await self._fetch(missing)
        self._front.put_many(list(fetched.items()))
        return [kept or fetched.get(key) for key, kept in zip(keys, found, strict=True)]

    async def _fetch(self, keys: Sequence[bytes]) -> dict[bytes, Outputs]:
        """Waits for PATIENCE_SECONDS at most; the operation itself ends by its socket's time-out."""
        task = self._run(self._guarded(self._redis.mget([KEY_PREFIX + key for key in keys])))
        await asyncio.wait({task}, timeout=PATIENCE_SECONDS)
        if not task.done():
            self._breaker.failed("no reply in time")
            return {}
        return _unsealed(keys, task.result())

    def put_many(self, pairs: Pairs) -> None:
        self._front.put_many(pairs)
        if pairs and self._breaker.permits():
            self._run(self._guarded(self._store({KEY_PREFIX + key: seal(key, out) for key, out in pairs})))

    async def _store(self, values: dict[bytes, bytes]) -> None:
        if not self._ttl:
            await self._redis.mset(values)  # several times faster than a SET with a TTL for each
            return
        async with self._redis.pipeline(transaction=False) as pipe:
            for key, value in values.items():
                pipe.set(key, value, ex=self._ttl)
            await pipe.execute()

    async def _guarded(self, operation: Awaitable[Any]) -> Any:
        """The operation's result; None, and a word to the breaker, if it fails in any way."""
        try:
            result = await operation
        except ResponseError as error:  # Redis answers, but refuses: full, read-only, wrong type
            log.warning("cache refused: %s", type(error).__name__)
            return None
        except Exception as error:  # a corrupt reply can raise anything out of the parser
            self._breaker.failed(type(error).__name__)
            return None
        self._breaker.succeeded()
        return result

    def _run(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """In its own task: a caller who leaves must not cancel an operation whose reply is under way."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def close(self) -> None:
        if self._running:
            await asyncio.wait(self._running, timeout=2 * PATIENCE_SECONDS)
        await self._redis.aclose()


def open_cache(location: str, *, entries: int, max_bytes: int, ttl_seconds: int) -> Cache:
    """The cache that a setting names: `memory`, or the address of a Redis.

    Raises:
        ValueError: the address cannot be read; its text may quote a password.
    """
    memory = MemoryCache(entries, max_bytes)
    return memory if location == "memory" else RedisCache(location, memory, ttl_seconds)


def _unsealed(keys: Sequence[bytes], values: object) -> dict[bytes, Outputs]:
    """The intact ones of Redis's reply, which may be anything at all."""
    if not isinstance(values, list) or len(values) != len(keys):
        return {}
    pairs = zip(keys, values, strict=True)
    opened = ((key, unseal(key, value)) for key, value in pairs if isinstance(value, bytes))
    return {key: outputs for key, outputs in opened if outputs is not None}


def _owned(outputs: Outputs) -> Outputs:
    """Without views: a view of one row would keep the whole batch's memory alive."""
    if all(array.base is None for array in outputs.arrays):
        return outputs
    hidden, attentions = (
        {layer: np.array(values) for layer, values in states.items()}
        for states in (outputs.hidden, outputs.attentions)
    )
    return Outputs(_copy(outputs.logits), hidden, _copy(outputs.mask), attentions)


def _copy(array: Array | None) -> Array | None:
    return None if array is None else np.array(array)
