"""What the server promises under load, at length: each test's short form is in tests/server."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from endurance import growth
from faces import FaultyServer

NewFaulty = Callable[..., FaultyServer]
Record = Callable[[str, Any], None]


async def test_a_million_calls_leave_nothing_behind(new_faulty: NewFaulty, record_property: Record) -> None:
    record_property("promise", "no leak")
    record_property("size", "1,000,000 calls, 10 % of them wrong, 10 % cancelled")
    warm, after = await growth(new_faulty("--cache-entries", "1000").running, 1_000_000)
    grown = after.mib / warm.mib - 1
    record_property(
        "result", f"memory {warm.mib:.0f} MiB {grown:+.1%}; files, threads, tasks: {warm} -> {after}"
    )
    assert replace(after, mib=0) == replace(warm, mib=0)
    assert grown <= 0.05
