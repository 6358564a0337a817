"""Promise 13 and the server's side of 14: never over budget, never charged twice, in memory and in Redis."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from budget_asks import DAY, TARIFF, ask_of, limits_of
from histories import spend_together
from processes import RedisProcess, redis_missing
from redis import Redis

from teacher_api.errors import (
    BudgetSpentError,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    TeacherError,
)
from teacher_api.prices import load_tariff
from teacher_server.auth import Limits
from teacher_server.quota import _until_next
from teacher_server.quota.budgets import Budgets, Charge, MemoryBudgets, Spent
from teacher_server.quota.charge_log import ChargeLog, charges
from teacher_server.quota.redis_budgets import RedisBudgets


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    if redis_missing():
        pytest.skip("needs a redis-server: apt-get install redis-server")
    running = RedisProcess("--maxmemory-policy", "noeviction")
    yield running.url
    running.kill()


@pytest.fixture(params=["memory", "redis"])
async def budgets(request: pytest.FixtureRequest) -> AsyncIterator[Budgets]:
    """Either, empty."""
    if request.param == "memory":
        yield MemoryBudgets(TARIFF)
        return
    url = request.getfixturevalue("redis_url")
    with Redis.from_url(url) as redis:
        redis.flushall()
    opened = RedisBudgets(url, TARIFF)
    yield opened
    await opened.close()


async def test_what_is_not_charged_is_given_back(budgets: Budgets) -> None:
    ask = ask_of("a", Limits(queries=3), "", [1, 2, 3], [1, 1, 1])
    grant = await budgets.reserve(ask)
    with pytest.raises(BudgetSpentError) as refused:
        await budgets.reserve(ask_of("a", Limits(queries=3), "", [4], [1]))
    assert (refused.value.field, refused.value.value, refused.value.limit) == ("queries", "4", "3 a month")
    assert refused.value.retry_after_ms == 1000
    assert await budgets.settle(ask, grant.ticket, [1]) == Charge(1, 1, 0)
    assert await budgets.spent("a", DAY[:7]) == await budgets.spent("a", DAY) == Spent(1, 1)
    assert (await budgets.reserve(ask_of("a", Limits(queries=3), "", [4, 5], [1, 1]))).ticket


async def test_a_cached_text_is_free_and_a_repeated_one_counts_once(budgets: Budgets) -> None:
    limits = Limits(queries=1, units=3)
    assert not (await budgets.reserve(ask_of("a", limits, "", [1, 2], [0, 0]))).ticket
    ask = ask_of("a", limits, "", [1, 1, 2], [3, 3, 0])
    grant = await budgets.reserve(ask)
    assert await budgets.settle(ask, grant.ticket, [0]) == Charge(1, 3, 0)


async def test_an_operation_pays_for_a_text_once(budgets: Budgets) -> None:
    limits = Limits(queries=10)
    first, retry = (ask_of("a", limits, "run", [1, 2], [1, 1]) for _ in range(2))
    grants = [await budgets.reserve(first), await budgets.reserve(retry)]  # the first answer is late
    assert await budgets.settle(first, grants[0].ticket, [0, 1]) == Charge(2, 2, 0)
    assert await budgets.settle(retry, grants[1].ticket, [0, 1]) == Charge(0, 0, 0)
    again = await budgets.reserve(ask_of("a", limits, "run", [2, 3, 1], [1, 1, 0]))
    assert again.paid == {0, 2}
    other = await budgets.reserve(ask_of("a", limits, "another", [1], [1]))
    foreign = await budgets.reserve(ask_of("b", limits, "run", [1], [1]))
    assert other.paid == foreign.paid == frozenset()


async def test_dollars_follow_the_tiers_of_the_month(budgets: Budgets) -> None:
    """45 units: 5 free, 35 at .0015, 5 at .001 make .0575; the day's budget is in the month's tiers."""
    ask = ask_of("a", Limits(), "", [1], [45], day="2026-11-23")
    charge = await budgets.settle(ask, (await budgets.reserve(ask)).ticket, [0])
    assert charge == Charge(1, 45, 57_500_000)
    limits = Limits(usd=Decimal("0.01"), per="day")
    with pytest.raises(BudgetSpentError) as refused:
        await budgets.reserve(ask_of("a", limits, "", [2], [11]))
    assert (refused.value.field, refused.value.value, refused.value.limit) == ("usd", "0.011", "0.01 a day")
    ask = ask_of("a", limits, "", [2], [10])
    assert (await budgets.settle(ask, (await budgets.reserve(ask)).ticket, [0])).nano == 10_000_000
    assert (await budgets.spent("a", DAY)).nano == 10_000_000
    assert (await budgets.spent("a", "2026-11")).nano == 67_500_000


async def test_texts_per_second_and_in_flight(budgets: Budgets) -> None:
    slow = Limits(texts_per_second=2.0)
    await budgets.reserve(ask_of("a", slow, "", [1, 2], [0, 0]))
    with pytest.raises(OverloadedError) as refused:
        await budgets.reserve(ask_of("a", slow, "", [1, 2], [0, 0]))
    assert (refused.value.field, refused.value.limit) == ("texts_per_second", "2.0")
    assert 0 < refused.value.retry_after_ms <= 1000
    few = Limits(texts_in_flight=2)
    ask = ask_of("b", few, "", [1, 2], [1, 1])
    grant = await budgets.reserve(ask)
    with pytest.raises(OverloadedError) as refused:
        await budgets.reserve(ask_of("b", few, "", [3], [1]))
    assert (refused.value.field, refused.value.limit) == ("texts_in_flight", "2")
    await budgets.settle(ask, grant.ticket, [])
    assert (await budgets.reserve(ask_of("b", few, "", [3], [1]))).ticket
    with pytest.raises(InvalidRequestError, match="fewer texts"):
        await budgets.reserve(ask_of("b", few, "", [1, 2, 3], [1, 1, 1]))


async def test_both_kinds_count_alike(redis_url: str) -> None:
    """The same 400 random steps: every grant, charge, refusal and sum is the same."""
    shared, own, chance = RedisBudgets(redis_url, TARIFF), MemoryBudgets(TARIFF), random.Random(0)
    held = []
    for _ in range(400):
        seed = chance.randrange(8)
        texts = [chance.randrange(30) for _ in range(chance.randint(1, 6))]
        units = [text % 5 for text in texts]
        day = f"2026-{chance.choice(['11-29', '11-30', '12-01'])}"
        operation = chance.choice(["", "x", "y"])
        ask = ask_of(f"same{seed}", limits_of(seed), operation, texts, units, day)
        outcomes = [await outcome(one, ask) for one in (shared, own)]
        assert outcomes[0][1:] == outcomes[1][1:]
        if outcomes[0][0]:
            held.append((ask, outcomes[0][0], outcomes[1][0], outcomes[0][1]))
        while held and chance.random() < 0.6:
            ask, one, other, paid = held.pop(chance.randrange(len(held)))
            numbers = [n for n, u in enumerate(ask.units) if u and n not in paid and chance.random() < 0.8]
            numbers = list({ask.texts[n]: n for n in numbers}.values())
            assert await shared.settle(ask, one, numbers) == await own.settle(ask, other, numbers)
        for period in ("2026-11", day):
            assert await shared.spent(ask.key, period) == await own.spent(ask.key, period)
    await shared.close()


async def outcome(budgets: Budgets, ask: object) -> tuple[str, object]:
    try:
        grant = await budgets.reserve(ask)  # type: ignore[arg-type]
    except TeacherError as error:
        return "", (type(error), error.field, error.value)
    return grant.ticket, grant.paid


def test_eight_processes_never_overspend(redis_url: str) -> None:
    """20 histories with cancellations, deaths, lost replies, cut connections and a process killed."""
    assert spend_together(redis_url, first=0, histories=20).charged > 0


async def test_a_lease_ends_and_what_comes_later_is_free(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teacher_server.quota.redis_budgets.LEASE_SECONDS", 1)
    budgets, limits = RedisBudgets(redis_url, TARIFF), Limits(queries=1)
    ask = ask_of("lease", limits, "", [1], [1])
    late = await budgets.reserve(ask)
    with pytest.raises(BudgetSpentError):
        await budgets.reserve(ask)
    time.sleep(1.1)  # noqa: ASYNC251  # the lease's own clock is Redis's
    second = await budgets.reserve(ask)
    assert await budgets.settle(ask, late.ticket, [0]) == Charge(valid=False)
    assert await budgets.settle(ask, second.ticket, [0]) == Charge(1, 1, 0)
    await budgets.close()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "noeviction"])
async def test_a_redis_that_evicts_is_warned_of(
    redis_server: RedisProcess, policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Redis.from_url(redis_server.url) as redis:
        redis.config_set("maxmemory-policy", policy)
    budgets = RedisBudgets(redis_server.url, TARIFF)
    await budgets.look()
    assert ("set its maxmemory-policy to noeviction" in caplog.text) is (policy != "noeviction")
    redis_server.kill()
    await budgets.look()  # said in the log, and no reason not to start
    assert "the budgets cannot be reached" in caplog.text
    await budgets.close()


@pytest.mark.parametrize("kept", ["yes", "no"])
async def test_a_redis_that_forgets_is_warned_of(
    redis_url: str, kept: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    running = RedisProcess("--dir", str(tmp_path), "--appendonly", kept)
    budgets = RedisBudgets(running.url, TARIFF)
    await budgets.look()
    await budgets.close()
    running.kill()
    assert ("set its appendonly to yes" in caplog.text) is (kept == "no")


async def test_a_redis_that_is_back_refuses_nobody(redis_server: RedisProcess) -> None:
    """None of the pool's connections from before is used again."""
    budgets = RedisBudgets(redis_server.url, TARIFF)
    asks = [ask_of(f"key {number}", Limits(), "", [1], [1]) for number in range(32)]
    await asyncio.gather(*[budgets.reserve(ask) for ask in asks])
    redis_server.kill()
    redis_server.start()
    await asyncio.sleep(0.1)  # until their ends are seen here
    granted = await asyncio.gather(*[budgets.reserve(ask) for ask in asks])
    assert all(grant.ticket for grant in granted)
    await budgets.close()


async def test_without_its_redis_nothing_is_granted(redis_server: RedisProcess) -> None:
    budgets = RedisBudgets(redis_server.url, TARIFF)
    ask = ask_of("a", Limits(), "", [1], [1])
    grant = await budgets.reserve(ask)
    redis_server.kill()
    for step in (lambda: budgets.reserve(ask), lambda: budgets.settle(ask, grant.ticket, [0])):
        with pytest.raises(NotReadyError, match="nothing is asked"):
            await step()
    await budgets.close()


def test_every_book_can_be_budgeted() -> None:
    for book, feature in (("google-natural-language", "syntax"), ("aws-comprehend", "sentiment")):
        assert MemoryBudgets(load_tariff(book, feature))
        assert RedisBudgets("redis://localhost:1", load_tariff(book, feature))


async def test_the_charge_log_restores_an_account(tmp_path: Path) -> None:
    path = tmp_path / "charges"
    log = ChargeLog(path)
    line = {"key": "a", "day": DAY, "queries": 2, "units": 6, "usd": "0.0015"}
    log.write(line)
    log.close()
    with path.open("ab") as file:
        file.write(b'{"key": "a", "da')  # the power was cut
    log = ChargeLog(path)
    log.write(line)
    log.close()
    budgets = MemoryBudgets(TARIFF)
    for key, day, charge in charges(path):
        budgets.restore(key, day, charge)
    assert await budgets.spent("a", DAY) == Spent(4, 12, 3_000_000)


def test_no_charge_is_lost_where_the_log_is_full() -> None:
    log = ChargeLog(Path("/dev/full"))
    log.check()
    log.write({"key": "a"})
    with pytest.raises(NotReadyError, match="charge log"):
        log.check()
    log.close()


@pytest.mark.parametrize(
    ("per", "now", "wait"),
    [
        ("day", datetime(2026, 12, 31, 23, 59, tzinfo=UTC), timedelta(minutes=1)),
        ("month", datetime(2026, 12, 31, 23, tzinfo=UTC), timedelta(hours=1)),
        ("month", datetime(2027, 1, 31, tzinfo=UTC), timedelta(days=1)),
        ("month", datetime(2028, 2, 1, tzinfo=UTC), timedelta(days=29)),
    ],
)
def test_when_a_budget_is_new(per: str, now: datetime, wait: timedelta) -> None:
    assert _until_next(per, now) == wait.total_seconds() * 1000  # type: ignore[arg-type]
