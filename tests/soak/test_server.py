"""What the server promises under load, at full length and at the figures of a quiet machine.

Each test's short form, with the tolerance that a busy machine needs, is in tests/server.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from checkups import checkups
from deadlines import overruns
from endurance import growth
from faces import FaultyServer, OverGrpc, texts
from overload import overload
from oversize import CASES, refusal
from processes import ServerProcess, StartServer
from sameness import largest_difference
from test_faults import RAISED

from teacher_api.errors import TeacherError

NewFaulty = Callable[..., FaultyServer]
Record = Callable[[str, Any], None]


async def test_a_thousand_sets_of_texts(
    server: ServerProcess, new_server: StartServer, record_property: Record
) -> None:
    record_property("promise", "remembered = computed")
    record_property("size", "1,000 sets of 1 to 12 texts, each in two batches")
    worst = await largest_difference(server, new_server("--cache-entries", "0"), sets=1000)
    record_property("result", f"remembered bitwise equal, across batches {worst:.1e}")
    assert worst <= 1e-5


async def test_overload(new_faulty: NewFaulty, record_property: Record) -> None:
    record_property("promise", "overload is refused, not queued")
    record_property("size", "open loop at 3 times the capacity, 30 s")
    found = await overload(new_faulty().running, seconds=30)
    slowest, share = found.got.refused_within(0.99), found.goodput / found.capacity
    record_property(
        "result",
        f"capacity {found.capacity:.0f}/s, goodput {share:.1%}, refusal p99 {1000 * slowest:.1f} ms, "
        f"{found.got.late} late of {len(found.got.answers)} answered; usual after {found.recovery:.2f} s",
    )
    assert share >= 0.9
    assert slowest <= 0.010
    assert found.recovery <= 2


async def test_a_million_calls_leave_nothing_behind(new_faulty: NewFaulty, record_property: Record) -> None:
    record_property("promise", "no leak")
    record_property("size", "1,000,000 calls, 10 % of them wrong, 10 % cancelled")
    warm, after = await growth(new_faulty("--cache-entries", "1000").running, 1_000_000)
    grown = after.mib / warm.mib - 1
    constant = f"{after.files} files, {after.threads} threads, {after.tasks} tasks"
    record_property("result", f"memory {warm.mib:.0f} MiB {grown:+.1%}; {constant}")
    assert replace(after, mib=0) == replace(warm, mib=0)
    assert grown <= 0.05


async def test_health_is_honest_under_load(new_faulty: NewFaulty, record_property: Record) -> None:
    record_property("promise", "health stays honest under load")
    record_property("size", "60 batches of 1 s")
    delays = await checkups(new_faulty().running, batches=60, name="health")
    record_property("result", f"{len(delays)} checks, the slowest {1000 * max(delays):.0f} ms")
    assert max(delays) <= 0.1


async def test_deadlines(new_faulty: NewFaulty, record_property: Record) -> None:
    record_property("promise", "deadlines respected")
    record_property("size", "10,000 calls with 1 to 200 ms")
    faulty = new_faulty()
    face = OverGrpc(faulty.running)
    worst = max(await overruns(face, calls=10_000))
    await face.close()
    late = faulty.seen("late")
    record_property("result", f"the latest caller {1000 * worst:.0f} ms late; {late} model runs too late")
    assert worst <= 0.05
    assert late == 0


async def test_every_exception_is_answered(new_faulty: NewFaulty, record_property: Record) -> None:
    record_property("promise", "every call is answered")
    record_property("size", f"{len(RAISED)} exceptions, 100 times each")
    face = OverGrpc(new_faulty().running)
    await face.ask(texts("warm"))
    delays = [await answered(face, name) for name in RAISED for _ in range(100)]
    await face.close()
    record_property("result", f"the slowest {1000 * max(delays):.0f} ms")
    assert max(delays) <= 0.1


async def answered(face: OverGrpc, name: str) -> float:
    began = time.monotonic()
    with pytest.raises(TeacherError) as raised:
        await face.ask(texts(f"raise {name}"))
    assert raised.value.code == RAISED[name]
    return time.monotonic() - began


async def test_sizes(server: ServerProcess, record_property: Record) -> None:
    record_property("promise", "size limits hold")
    record_property("size", f"{len(CASES)} ways to ask too much, 5 times each")
    told = {case: [await refusal(server, case) for _ in range(5)] for case in CASES}
    # The middle of five; gRPC's caller packs the bomb while the clock runs.
    seconds = {case: float(np.median([one.seconds for one in some])) for case, some in told.items()}
    slowest = max(second for case, second in seconds.items() if case != "a bomb, gRPC")
    mib = max(one.mib for some in told.values() for one in some)
    record_property("result", f"the slowest {1000 * slowest:.0f} ms, memory + {mib:.1f} MiB")
    assert {case: {one.code for one in some} for case, some in told.items()} == {
        case: {code} for case, (_, code) in CASES.items()
    }
    assert slowest <= 0.1
    assert mib <= 20
