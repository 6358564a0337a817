"""What the tests of budgets ask, and at which prices."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal

from teacher_api.prices import Tariff, Tier
from teacher_server.auth import Limits
from teacher_server.quota.budgets import Ask

DAY = "2026-11-24"
TARIFF = Tariff(
    name="test",
    as_of=date(2026, 11, 24),
    source="made up",
    unit_characters=10,
    free_units=5,
    tiers=(
        Tier(up_to=40, usd_per_1000=Decimal("1.5")),
        Tier(up_to=90, usd_per_1000=Decimal(1)),
        Tier(usd_per_1000=Decimal("0.125")),
    ),
)


def limits_of(seed: int) -> Limits:
    """A budget of one kind or another, small enough to be spent."""
    kind = seed % 4
    if kind == 0:
        return Limits(queries=30 + seed)
    if kind == 1:
        return Limits(units=60 + seed, per="day")
    if kind == 2:
        return Limits(usd=Decimal("0.07"), per="day" if seed % 8 == 2 else "month")
    return Limits(queries=50, units=80, usd=Decimal("0.1"), texts_in_flight=40)


def ask_of(
    key: str, limits: Limits, operation: str, texts: Sequence[int], units: Sequence[int], day: str = DAY
) -> Ask:
    return Ask(
        key=key,
        limits=limits,
        operation=operation,
        count=len(texts),
        texts=[text.to_bytes(12, "big") for text in texts],
        units=list(units),
        day=day,
        period_ends_ms=1000,
    )
