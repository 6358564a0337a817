"""Answers in a Redis that many servers share, behind this process's memory.

Operations are never cancelled half-way, so that no connection is left with another's reply in it, and
every value proves by its seal which question it answers.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from redis.exceptions import ResponseError

from teacher_api.messages import Outputs
from teacher_api.sealed import seal, unseal_many
from teacher_server.cache.line import Line
from teacher_server.cache.memory import MemoryCache, Pairs
from teacher_server.redis_client import connection_of, redis_client

SOCKET_SECONDS = 0.2
PATIENCE_SECONDS = 0.25  # the most that a request ever waits for Redis
REST_SECONDS = 2.0  # how long a Redis that failed is left alone
PROBE_SECONDS = 2.5  # between PINGs where nobody asks: longer, so that whoever asks has the first try
KEY_PREFIX = b"dkd:"

log = logging.getLogger(__name__)


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
        self._redis = redis_client(url, SOCKET_SECONDS)
        self._front, self._ttl = front, ttl_seconds
        self._breaker = Breaker()
        self._line: Line | None = None
        self._running: set[asyncio.Task[Any]] = set()
        self._probe: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def available(self) -> bool:
        return self._breaker.closed

    def recall(self, key: bytes) -> Outputs | None:
        return self._front.recall(key)

    async def get_many(self, keys: Sequence[bytes]) -> list[Outputs | None]:
        found = await self._front.get_many(keys)
        asked = [key for key, outputs in zip(keys, found, strict=True) if outputs is None]
        if not asked or not self._breaker.permits():
            return found
        fetched = await self._fetch(asked)
        self._front.put_many((key, out) for key, out in zip(asked, fetched, strict=True) if out is not None)
        if len(asked) == len(keys):
            return [*fetched]
        rest = iter(fetched)
        return [next(rest) if outputs is None else outputs for outputs in found]

    async def _fetch(self, keys: Sequence[bytes]) -> Sequence[Outputs | None]:
        """The intact ones of Redis's reply, which may be anything at all."""
        if self._line is None or self._line.ended:
            self._line = Line(connection_of(self._redis), SOCKET_SECONDS, self._note)
        line, nothing = self._line, [None] * len(keys)
        values = await line.ask(_mget(keys))
        if isinstance(values, ResponseError):
            _refused(values)
            return nothing
        found = (
            unseal_many(keys, values) if isinstance(values, list) and len(values) == len(keys) else nothing
        )
        if not any(found) and values != nothing:  # it may have been another's
            line.end("no answer to what was asked")
        return found

    def _note(self, fault: str) -> None:
        if fault:
            self._failed(fault)
        else:
            self._breaker.succeeded()

    def _failed(self, fault: str) -> None:
        self._breaker.failed(fault)
        if not self._closed and (self._probe is None or self._probe.done()):
            self._probe = asyncio.create_task(self._until_back())

    async def _until_back(self) -> None:
        """Where nobody asks, nobody would notice that it is back, and its alert would stay."""
        while not self._breaker.closed:
            await asyncio.sleep(PROBE_SECONDS)
            if self._breaker.permits():
                await self._guarded(self._redis.ping())

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
            _refused(error)
            return None
        except Exception as error:  # a corrupt reply can raise anything out of the parser
            self._failed(type(error).__name__)
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
        self._closed = True
        if self._running:
            await asyncio.wait(self._running, timeout=2 * PATIENCE_SECONDS)
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait({self._probe})
        if self._line is not None:
            await self._line.close()
        await self._redis.aclose()


def _mget(keys: Sequence[bytes]) -> bytes:
    """The command in Redis's protocol, from keys of one size: a client's way takes twelve times as long."""
    key = b"\r\n$%d\r\n%s" % (len(KEY_PREFIX + keys[0]), KEY_PREFIX)
    return b"*%d\r\n$4\r\nMGET" % (len(keys) + 1) + key + key.join(keys) + b"\r\n"


def _refused(error: ResponseError) -> None:
    log.warning("cache refused: %s", type(error).__name__)
