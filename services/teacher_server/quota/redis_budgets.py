"""The accounts of all replicas, in one Redis: each step is one run of budgets.lua.

The Redis must not evict (`maxmemory-policy noeviction`) and must keep an append-only file: it is not
the cache's. Where it does not answer, nothing is asked.
"""

import asyncio
import contextlib
import json
import logging
import uuid
from collections.abc import Coroutine, Sequence
from importlib.resources import files
from typing import Any

from redis.exceptions import RedisError

from teacher_api.errors import NotReadyError
from teacher_api.prices import Tariff
from teacher_server.quota.budgets import Ask, Charge, Grant, Spent, nano_limit, nano_tiers, refusal
from teacher_server.redis_client import redis_client

PREFIX = "dkd-budget"
SOCKET_SECONDS = 1.0
LEASE_SECONDS = 900  # no request takes so long: by then whoever held a reservation has died
SETTLE_TRIES = 3

log = logging.getLogger(__name__)


class RedisBudgets:
    """See Budgets. Operations are never cancelled half-way: each runs in a task of its own."""

    def __init__(self, url: str, tariff: Tariff) -> None:
        """Raises ValueError: the address cannot be read; its text may quote a password."""
        self._redis = redis_client(url, SOCKET_SECONDS)
        script = (files("teacher_server.quota") / "budgets.lua").read_text("utf-8")
        self._script = self._redis.register_script(script)
        self._prices = {"free": tariff.free_units, "tiers": nano_tiers(tariff), "lease": LEASE_SECONDS}
        self._running: set[asyncio.Task[Any]] = set()
        self.available = True

    async def reserve(self, ask: Ask) -> Grant:
        limits = ask.limits.model_dump(exclude_none=True, exclude={"usd"})
        nano = nano_limit(ask.limits)
        step = {
            "step": "reserve",
            "id": uuid.uuid4().hex,
            "limits": limits if nano is None else limits | {"nano": nano},
            "count": ask.count,
            "texts": [text.hex() for text in ask.texts],
            "units": ask.units,
            "day": ask.day,
        }
        first, second, *rest = await self._step(ask, step)
        if first:
            raise refusal(ask, first.decode(), int(second or 0), int(rest[0]))
        return Grant(second.decode(), frozenset(rest))

    async def settle(self, ask: Ask, ticket: str, charged: Sequence[int]) -> Charge:
        step = {
            "step": "settle",
            "ticket": ticket,
            "texts": [ask.texts[number].hex() for number in charged],
            "units": [ask.units[number] for number in charged],
        }
        for left in reversed(range(SETTLE_TRIES)):  # the same ticket is settled once
            try:
                valid, queries, units, nano = await self._step(ask, step)
                return Charge(queries, units, nano, bool(valid))
            except NotReadyError:
                if not left:
                    raise
        raise AssertionError("at least one try")

    async def spent(self, key: str, period: str) -> Spent:
        found = await self._guarded(self._redis.hgetall(f"{PREFIX}:{{{key}}}:{period}"))
        names = Spent.__dataclass_fields__
        return Spent(**{name: int(found.get(name.encode(), 0)) for name in names})

    async def look(self) -> None:
        """Warns of a Redis that evicts or forgets; one that cannot be reached has been said to be."""
        with contextlib.suppress(NotReadyError):
            found = await self._guarded(self._redis.info())
            policy, kept = found.get("maxmemory_policy"), found.get("aof_enabled")
            if policy != "noeviction":
                remedy = "set its maxmemory-policy to noeviction, or name another"
                log.warning("the budgets' Redis may forget them: %s", remedy, extra={"policy": policy})
            if kept == 0:
                remedy = "what was spent may be granted again after its restart; set its appendonly to yes"
                log.warning("the budgets' Redis keeps no append-only file: %s", remedy)

    async def close(self) -> None:
        if self._running:
            await asyncio.wait(self._running, timeout=2 * SOCKET_SECONDS)
        await self._redis.aclose()

    async def _step(self, ask: Ask, step: dict[str, Any]) -> Any:
        prefix = f"{PREFIX}:{{{ask.key}}}"  # in braces: on a cluster all of a key lies on one node
        operation = f"{prefix}:operation:{ask.operation}" if ask.operation else ""
        keys = [prefix, f"{prefix}:leases", operation]
        return await self._guarded(self._script(keys=keys, args=[json.dumps(step | self._prices)]))

    async def _guarded(self, work: Any) -> Any:
        try:
            answer = await asyncio.shield(self._run(work))
            self.available = True
            return answer
        except (RedisError, OSError, ValueError) as error:  # ValueError: a corrupt reply
            self.available = False
            log.error("the budgets cannot be reached", extra={"fault": type(error).__name__})
            raise NotReadyError(
                "the budgets cannot be reached, so nothing is asked", retry_after_ms=1000
            ) from None

    def _run(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # seen, also where the caller has left
