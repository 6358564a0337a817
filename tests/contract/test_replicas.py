"""Several servers of one teacher: killed, hung, drained, added under load, and no call fails."""

import asyncio
import signal
from pathlib import Path

import pytest
from name_server import NameServer
from processes import RedisProcess
from redis import Redis
from replicas import TEXTS, Load, left_alone, replicas, roll, same, takes_part, together

from student_trainer.teachers import Options
from student_trainer.teachers.client import Client
from student_trainer.teachers.over_grpc import GrpcTeacher
from teacher_api.errors import FingerprintMismatchError
from teacher_api.messages import Want

CALLS = 3000
HUNG_SECONDS = 2 + 1  # the second for a machine that is busy with other tests


async def test_one_killed_one_hung_one_added_and_no_call_fails(tiny_model: Path, tmp_path: Path) -> None:
    async with replicas(3, tiny_model, tmp_path) as servers:
        first, second, third = servers
        third.kill()
        async with Load(together(servers)) as load:
            await load.goes_on(300)
            await third.start()
            await takes_part(third)
            first.signal(signal.SIGKILL)
            await load.goes_on(300)
            second.signal(signal.SIGSTOP)
            await asyncio.sleep(HUNG_SECONDS)
            assert (
                load.oldest() < HUNG_SECONDS / 2
            )  # those that hung are answered by another, all others pass
            second.signal(signal.SIGCONT)
            await takes_part(second)
            await first.start()
            await takes_part(first)
            await load.goes_on(CALLS - load.calls)
        assert (load.failed, load.wrong) == ([], 0)


async def test_rolling_restarts_fail_no_call(tiny_model: Path, tmp_path: Path) -> None:
    async with replicas(3, tiny_model, tmp_path) as servers:
        async with Load(together(servers)) as load:
            await roll(servers, restarts=6)
            await load.goes_on(CALLS - load.calls)
        assert (load.failed, load.wrong) == ([], 0)


async def test_a_name_gains_and_loses_replicas(tiny_model: Path, tmp_path: Path) -> None:
    """Connections end after a while, so that the name is looked up again though nothing has failed."""
    async with (
        replicas(3, tiny_model, tmp_path, "--connection-seconds=2") as servers,
        NameServer("127.0.0.2", "127.0.0.3") as names,
    ):
        first, _, third = servers
        name = f"dns://127.0.0.1:{names.port}/teachers.test:{first.port}"
        async with Load(GrpcTeacher([name], Options())) as load:
            await load.goes_on(300)
            assert await third.asked() == 0
            names.addresses = ("127.0.0.3", "127.0.0.4")
            await takes_part(third)
            await left_alone(first)
            assert await first.stop() == 0
            await load.goes_on(300)
        assert (load.failed, load.wrong) == ([], 0)


async def test_replicas_that_are_not_one_teacher_are_refused_at_the_start(
    tiny_model: Path, tmp_path: Path
) -> None:
    async with replicas(2, tiny_model, tmp_path) as servers:
        servers[1].kill()
        await servers[1].start("--max-length=64")  # truncates elsewhere: another teacher
        with pytest.raises(FingerprintMismatchError) as caught:
            await Client.over(together(servers))
        for one in servers:
            assert f"{one.place} serves {await one.fingerprint()}" in str(caught.value)


async def test_a_replica_that_comes_back_as_another_teacher_is_refused(
    tiny_model: Path, tmp_path: Path
) -> None:
    async with replicas(2, tiny_model, tmp_path) as servers, await Client.over(together(servers)) as client:
        servers[1].kill()
        await servers[1].start("--max-length=64")
        error = None
        while not error:  # until it is the other one's turn
            [answer] = await client.ask(TEXTS[:1], Want())
            error = answer.error
        assert type(error) is FingerprintMismatchError
        assert all([await one.fingerprint() in str(error) for one in servers])


async def test_what_one_has_answered_all_have(
    tiny_model: Path, tmp_path: Path, redis_server: RedisProcess
) -> None:
    async with replicas(2, tiny_model, tmp_path, "--cache", redis_server.url) as servers:
        one, other = (together([server]) for server in servers)
        asked = await one.predict(TEXTS[:50], Want(), "")
        await stored(redis_server, 50)
        shared = await other.predict(TEXTS[:50], Want(), "")
        assert all(answer.charged == 1 for answer in asked)
        assert all(answer.cached and not answer.charged for answer in shared)
        assert all(same(a.outputs, b.outputs) for a, b in zip(asked, shared, strict=True))
        await one.close()
        await other.close()


async def stored(server: RedisProcess, count: int) -> None:
    """Answers are written as soon as may be, not before they are given."""
    with Redis.from_url(server.url) as direct:
        async with asyncio.timeout(10):
            while direct.dbsize() < count:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
