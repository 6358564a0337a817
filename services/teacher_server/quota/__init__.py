"""How much a caller may ask: reserved before the model runs, settled after, by what was charged."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from teacher_api.errors import InvalidRequestError, PermissionDeniedError
from teacher_api.messages import Usage
from teacher_api.prices import UNPRICED, Tariff
from teacher_server.admission import Question
from teacher_server.auth import Access, Key, Period
from teacher_server.metrics import Metrics
from teacher_server.quota.budgets import NANO, Ask, Budgets, Charge, MemoryBudgets, dollars, nano_limit
from teacher_server.quota.charge_log import ChargeLog, charges

TEXT_BYTES = 12  # of a content key: enough to tell the texts of one operation apart
OPERATION_CHARACTERS = 200


def open_budgets(location: str, tariff: Tariff, log: Path | None) -> Budgets:
    """The accounts that a setting names: `memory`, which takes up what the charge log says, or a Redis.

    Raises:
        ValueError: the address cannot be read, and its text may quote a password; or a price is too fine.
        OSError, KeyError: the charge log cannot be read.
    """
    if location != "memory":
        from teacher_server.quota.redis_budgets import RedisBudgets  # noqa: PLC0415  # it takes time and memory

        return RedisBudgets(location, tariff)
    budgets = MemoryBudgets(tariff)
    for key, day, charge in charges(log) if log and log.is_file() else ():  # a pipe would never end
        budgets.restore(key, day, charge)
    return budgets


class Reservation:
    """One request's: to be settled once with what it is charged; what is not settled is given back.

    Attributes:
        owed: the texts that are charged where the request ends without being settled.
    """

    owed: Sequence[bool] = ()

    def __init__(self, quota: "Quota", ask: Ask, ticket: str, paid: frozenset[int]) -> None:
        self._quota, self._ask, self._ticket, self._paid = quota, ask, ticket, paid

    async def settle(self, charged: Sequence[bool]) -> list[bool]:
        """Which texts the caller is told are charged: once an operation has paid, whenever it asks again.

        Raises:
            NotReadyError: the account could not be told; the answers must not leave.
        """
        numbers = [number for number, one in enumerate(charged) if one and number not in self._paid]
        ticket, self._ticket = self._ticket, ""
        valid = not ticket or (await self._quota.settled(self._ask, ticket, numbers)).valid
        told = self._paid | (frozenset(numbers) if valid else frozenset())
        return [number in told for number in range(len(charged))]

    @property
    def open(self) -> bool:
        return bool(self._ticket)


class Quota:
    """The limits and accounts of all keys. `teacher` is the fingerprint that the charge log names."""

    def __init__(
        self,
        access: Access,
        budgets: Budgets,
        tariff: Tariff,
        log: ChargeLog,
        teacher: str,
        metrics: Metrics,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._access, self._budgets, self._tariff = access, budgets, tariff
        self._log, self._teacher, self._metrics, self._now = log, teacher, metrics, now
        metrics.budget_up.set_function(lambda: budgets.available and log.available)
        self._returning: set[asyncio.Task[list[bool]]] = set()

    def permit(self, question: Question) -> None:
        """Raises UnauthenticatedError or PermissionDeniedError: not for this caller."""
        key = self._access.named(question.caller)
        key.require("predict")
        if question.want.layers or question.want.attentions:
            key.require("hidden")
        if key.limits.usd is not None and self._tariff is UNPRICED:
            raise PermissionDeniedError(
                "this key's budget is in dollars, and the server has no price_book", field="usd"
            )
        if len(question.operation) > OPERATION_CHARACTERS:
            raise InvalidRequestError(
                "the operation's name is too long",
                field="operation-id",
                value=question.operation,
                limit=OPERATION_CHARACTERS,
            )

    @contextlib.asynccontextmanager
    async def reserved(
        self, question: Question, texts: Sequence[bytes], missing: Sequence[bool]
    ) -> AsyncIterator[Reservation]:
        """A reservation for what the model must run for.

        Args:
            texts: content key of each instance.
            missing: whether no answer to it is known yet.

        Raises:
            OverloadedError, BudgetSpentError, InvalidRequestError: the key's limit, and when to come back.
            NotReadyError: the accounts cannot be reached.
        """
        self._log.check()
        ask = self._ask(question, texts, missing)
        grant = await self._budgets.reserve(ask)
        reservation = Reservation(self, ask, grant.ticket, grant.paid)
        try:
            yield reservation
        finally:
            if reservation.open:  # in a task of its own: the caller may have left
                task = asyncio.ensure_future(reservation.settle(reservation.owed))
                self._returning.add(task)
                task.add_done_callback(self._returning.discard)

    async def settled(self, ask: Ask, ticket: str, numbers: Sequence[int]) -> Charge:
        """Charges the texts at these positions, and writes the charge into the log."""
        charge = await self._budgets.settle(ask, ticket, numbers)
        if charge.queries:
            self._metrics.charged(ask.key, charge.queries, charge.units, charge.nano / NANO)
            self._log.write(
                {
                    "time": self._now().isoformat(timespec="milliseconds"),
                    "day": ask.day,
                    "key": ask.key,
                    "operation": ask.operation,
                    "teacher": self._teacher,
                    "queries": charge.queries,
                    "units": charge.units,
                    "usd": dollars(charge.nano),
                }
            )
        return charge

    async def usage(self, caller: str, counts: dict[str, dict[str, int]]) -> Usage:
        """What a key was charged and has left; for scope `admin`, that of all keys beside it.

        Args:
            counts: of each key since this server started, by the fields of Usage.
        """
        key = self._access.named(caller)
        own = await self._usage(key, counts)
        if "admin" not in key.scopes or self._access.open:
            return own
        everyone = [await self._usage(one, counts) for one in self._access.keys]
        return dataclasses.replace(own, keys=tuple(everyone))

    async def _usage(self, key: Key, counts: dict[str, dict[str, int]]) -> Usage:
        limits, day = key.limits, f"{self._now():%Y-%m-%d}"
        period = day if limits.per == "day" else day[:7]
        spent = await self._budgets.spent(key.name, period)
        nano = nano_limit(limits)
        since_start = Usage(**counts.get(key.name, {}))  # type: ignore[arg-type]  # counts only
        return dataclasses.replace(
            since_start,
            key=key.name,
            period=period,
            queries=spent.queries,
            units=spent.units,
            usd="" if self._tariff is UNPRICED else dollars(spent.nano),
            remaining=_left(limits.queries, spent.queries + spent.flying_queries),
            remaining_units=_left(limits.units, spent.units + spent.flying_units),
            remaining_usd=None if nano is None else dollars(max(0, nano - spent.nano)),
        )

    async def close(self) -> None:
        if self._returning:
            await asyncio.wait(self._returning, timeout=2)
        await self._budgets.close()
        self._log.close()

    def _ask(self, question: Question, texts: Sequence[bytes], missing: Sequence[bool]) -> Ask:
        key, now = self._access.named(question.caller), self._now()
        return Ask(
            key=key.name,
            limits=key.limits,
            operation=question.operation,
            count=len(texts),
            texts=[text[:TEXT_BYTES] for text in texts],
            units=[
                self._tariff.units(one.characters) if open_ else 0
                for one, open_ in zip(question.instances, missing, strict=True)
            ],
            day=f"{now:%Y-%m-%d}",
            period_ends_ms=_until_next(key.limits.per, now),
        )


def _left(limit: int | None, spent: int) -> int | None:
    return None if limit is None else max(0, limit - spent)


def _until_next(period: Period, now: datetime) -> int:
    """Milliseconds to the next day or month, in UTC."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    tomorrow = midnight + timedelta(days=1)
    end = tomorrow if period == "day" else (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
    return int((end - now).total_seconds() * 1000)
