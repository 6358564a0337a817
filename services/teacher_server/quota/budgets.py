"""What keys have been charged and have in flight: in this process, or in a Redis that replicas share.

A reservation is made before the model runs, as if every text of it were charged; settling gives it back
and charges what was. Both are one step, so no number of askers spends more than there is. Within an
operation a text is charged once, however often it is asked.
"""

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from time import monotonic
from typing import Protocol

from teacher_api.errors import BudgetSpentError, InvalidRequestError, OverloadedError, TeacherError
from teacher_api.prices import Tariff
from teacher_server.auth import Limits

OPERATIONS = 1000  # of one key, that this process remembers
NANO = 10**9  # money is counted in billionths of a dollar: integers, in Redis too
IN_FLIGHT_RETRY_MS = 500


@dataclass(frozen=True, slots=True)
class Ask:
    """What one request wants granted.

    Attributes:
        operation: the caller's name for it, or empty.
        count: texts in the request.
        texts: what tells them apart.
        units: of each at the tariff; 0 for what is answered already, and so is free.
        day: of which the charge will be, "2026-11-24" in UTC; its month goes by the first 7 characters.
    """

    key: str
    limits: Limits
    operation: str
    count: int
    texts: Sequence[bytes]
    units: Sequence[int]
    day: str
    period_ends_ms: int


@dataclass(frozen=True, slots=True)
class Grant:
    """A ticket for what is reserved, empty if nothing is; and which texts their operation has paid for."""

    ticket: str
    paid: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Charge:
    """What a settled request was charged; `valid` is False if its reservation had ended by itself."""

    queries: int = 0
    units: int = 0
    nano: int = 0
    valid: bool = True


@dataclass(frozen=True, slots=True)
class Spent:
    """A period's charges, and what is in flight, in queries, units and billionths of a dollar."""

    queries: int = 0
    units: int = 0
    nano: int = 0
    flying_queries: int = 0
    flying_units: int = 0


class Budgets(Protocol):
    """An account for each key.

    Attributes:
        available: whether they could be reached when last tried.
    """

    available: bool

    async def reserve(self, ask: Ask) -> Grant:
        """Raises OverloadedError, BudgetSpentError or InvalidRequestError, naming the limit; NotReadyError
        where the accounts cannot be reached: then nothing may be asked."""

    async def settle(self, ask: Ask, ticket: str, charged: Sequence[int]) -> Charge:
        """Gives the reservation back and charges the texts at these positions. Raises NotReadyError."""

    async def spent(self, key: str, period: str) -> Spent:
        """Of one day or month. Raises NotReadyError."""

    async def look(self) -> None:
        """Says in the log what would lose accounts."""

    async def close(self) -> None:
        """Gives connections back."""


def refusal(ask: Ask, limit: str, would: int, wait_ms: int) -> TeacherError:
    """The error for the limit that a request would pass, with what it would come to."""
    allowed = getattr(ask.limits, "usd" if limit == "nano" else limit)
    if limit == "texts_per_second":
        return OverloadedError(
            "this key asks too fast", field=limit, value=ask.count, limit=allowed, retry_after_ms=wait_ms
        )
    if limit == "texts_in_flight" and ask.count > allowed:
        return InvalidRequestError("ask fewer texts at once", field=limit, value=ask.count, limit=allowed)
    if limit == "texts_in_flight":
        return OverloadedError(
            "this key has too many texts in flight",
            field=limit,
            value=would,
            limit=allowed,
            retry_after_ms=IN_FLIGHT_RETRY_MS,
        )
    name, value = ("usd", dollars(would)) if limit == "nano" else (limit, str(would))
    return BudgetSpentError(
        "this key's budget does not hold what is asked",
        field=name,
        value=value,
        limit=f"{allowed} a {ask.limits.per}",
        retry_after_ms=ask.period_ends_ms,
    )


def dollars(nano: int) -> str:
    """Exact, as a decimal number."""
    return f"{Decimal(nano).scaleb(-9).normalize():f}"


def nano_limit(limits: Limits) -> int | None:
    return None if limits.usd is None else int(limits.usd * NANO)


def nano_tiers(tariff: Tariff) -> list[tuple[int, int]]:
    """Each tier's last unit (-1: none) and its price of a unit in billionths of a dollar.

    Raises:
        ValueError: a price is not a whole number of them.
    """
    prices = [tier.usd_per_1000 * NANO / 1000 for tier in tariff.tiers]
    if any(price != int(price) for price in prices):
        raise ValueError(f"{tariff.name}: a unit's price must be a whole number of billionths of a dollar")
    return [(tier.up_to or -1, int(price)) for tier, price in zip(tariff.tiers, prices, strict=True)]


@dataclass
class _Account:
    tokens: float = float("inf")
    at: float = 0.0
    flying: int = 0
    periods: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    operations: OrderedDict[str, set[bytes]] = field(default_factory=OrderedDict)
    tickets: dict[str, tuple[int, int, str]] = field(default_factory=dict)  # queries, units, day


class MemoryBudgets:
    """The accounts of this process: what budgets.lua does, without a Redis. A restart forgets them, but
    for what `restore` is told."""

    available = True

    def __init__(self, tariff: Tariff, clock: Callable[[], float] = monotonic) -> None:
        self._tariff, self._clock = tariff, clock
        self._accounts: defaultdict[str, _Account] = defaultdict(_Account)
        self._tickets = 0

    def restore(self, key: str, day: str, charge: Charge) -> None:
        """A charge out of the log of an earlier process."""
        amounts = {"queries": charge.queries, "units": charge.units, "nano": charge.nano}
        self._add(self._accounts[key], day, amounts)

    async def reserve(self, ask: Ask) -> Grant:
        account = self._accounts[ask.key]
        known = account.operations.get(ask.operation, ())
        paid = frozenset(number for number, text in enumerate(ask.texts) if text in known)
        missing = {
            text: units
            for number, (text, units) in enumerate(zip(ask.texts, ask.units, strict=True))
            if units and number not in paid
        }
        queries, units = len(missing), sum(missing.values())
        self._take_tokens(account, ask, lambda: self._check(account, ask, queries, units))
        if not queries:
            return Grant("", paid)
        self._tickets += 1
        ticket = str(self._tickets)
        account.tickets[ticket] = (queries, units, ask.day)
        account.flying += queries
        self._add(account, ask.day, {"flying_queries": queries, "flying_units": units})
        return Grant(ticket, paid)

    def _take_tokens(self, account: _Account, ask: Ask, check: Callable[[], None]) -> None:
        """Only where nothing else refuses."""
        rate, now = ask.limits.texts_per_second, self._clock()
        if rate is None:
            return check()
        most = max(rate, 1.0)
        tokens = min(most, account.tokens + (now - account.at) * rate)
        needed = min(float(ask.count), most)
        if tokens < needed:
            raise refusal(ask, "texts_per_second", 0, -int(-1000 * (needed - tokens) // rate))
        check()
        account.tokens, account.at = tokens - ask.count, now
        return None

    def _check(self, account: _Account, ask: Ask, queries: int, units: int) -> None:
        limits, month = ask.limits, account.periods[ask.day[:7]]
        period = account.periods[ask.day] if limits.per == "day" else month
        if not queries:
            return
        dearest = self._price(month["units"], month["flying_units"] + units)
        would = {
            "texts_in_flight": (limits.texts_in_flight, account.flying + queries),
            "queries": (limits.queries, period["queries"] + period["flying_queries"] + queries),
            "units": (limits.units, period["units"] + period["flying_units"] + units),
            "nano": (nano_limit(limits), period["nano"] + dearest),
        }
        for name, (most, amount) in would.items():
            if most is not None and amount > most:
                raise refusal(ask, name, amount, 0)

    async def settle(self, ask: Ask, ticket: str, charged: Sequence[int]) -> Charge:
        account = self._accounts[ask.key]
        queries, units, day = account.tickets.pop(ticket)
        account.flying -= queries
        self._add(account, day, {"flying_queries": -queries, "flying_units": -units})
        known = self._operation(account, ask.operation) if ask.operation and charged else set()
        fresh = {number for number in charged if ask.texts[number] not in known}
        known.update(ask.texts[number] for number in fresh)
        units = sum(ask.units[number] for number in fresh)
        charge = Charge(len(fresh), units, self._price(account.periods[day[:7]]["units"], units))
        self._add(account, day, {"queries": charge.queries, "units": units, "nano": charge.nano})
        return charge

    async def spent(self, key: str, period: str) -> Spent:
        found = self._accounts[key].periods[period]
        return Spent(**{name: found[name] for name in Spent.__dataclass_fields__})

    async def look(self) -> None:
        """A restart would, but for the charge log: that is what this setting means."""

    async def close(self) -> None:
        """Nothing is held."""

    def _operation(self, account: _Account, name: str) -> set[bytes]:
        known = account.operations.setdefault(name, set())
        account.operations.move_to_end(name)
        if len(account.operations) > OPERATIONS:
            account.operations.popitem(last=False)
        return known

    def _price(self, before: int, units: int) -> int:
        return int(self._tariff.usd(units, before) * NANO)

    def _add(self, account: _Account, day: str, amounts: dict[str, int]) -> None:
        for period in (day, day[:7]):
            account.periods[period].update(amounts)
