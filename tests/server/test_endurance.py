"""Nothing that a call leaves behind adds up. 1,000,000 calls: tests/soak."""

from collections.abc import Callable
from dataclasses import replace

from endurance import growth
from faces import FaultyServer

CALLS = 8_000
MIB = 10  # that an allocator may still come to want; calls that keep 1 KiB each would take more


async def test_many_calls_leave_nothing_behind(new_faulty: Callable[..., FaultyServer]) -> None:
    warm, after = await growth(new_faulty("--cache-entries", "1000").running, CALLS)
    assert replace(after, mib=0) == replace(warm, mib=0)
    assert after.mib <= max(1.05 * warm.mib, warm.mib + MIB)
