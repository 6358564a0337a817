"""Several servers of one teacher, and the Redis that they share, at length."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cached import storm
from processes import RedisProcess
from replicas import Load, replicas, roll, together

Record = Callable[[str, Any], None]


async def test_fifty_rolling_restarts_fail_no_call(
    tiny_model: Path, tmp_path: Path, record_property: Record
) -> None:
    record_property("promise", "rolling restarts")
    record_property("size", "50 restarts of 3 replicas, 16 callers that never pause")
    async with replicas(3, tiny_model, tmp_path) as servers:
        async with Load(together(servers)) as load:
            await roll(servers, restarts=50)
        record_property("result", f"{load.calls:,} calls, {len(load.failed)} failed, {load.wrong} wrong")
        assert load.calls >= 3000
        assert (load.failed, load.wrong) == ([], 0)


async def test_ten_thousand_gets_find_nobody_elses_answer(
    redis_server: RedisProcess, record_property: Record
) -> None:
    record_property("promise", "no cross-talk")
    record_property("size", "10,000 gets, a third cancelled; replies delayed, swapped, cut off")
    right, wrong = await storm(redis_server.port, gets=10_000)
    record_property("result", f"{right:,} hits, {wrong} of another question")
    assert wrong == 0
    assert right > 2000
