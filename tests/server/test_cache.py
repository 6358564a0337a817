"""The caches that work: bounds of the memory, a real Redis that is shared, a breaker."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import redis
import trustme
from cached import MakeCache, key, logits_only, outputs, same, stored
from processes import RedisProcess, free_port, redis_missing

from teacher_api.messages import Outputs
from teacher_server.cache.memory import MemoryCache
from teacher_server.cache.redis_cache import KEY_PREFIX, REST_SECONDS, Breaker, RedisCache

# ---- memory ----


async def test_memory_forgets_the_least_recently_used() -> None:
    cache = MemoryCache(entries=3, max_bytes=10**6)
    cache.put_many([(key(n), outputs(n)) for n in range(3)])
    assert cache.recall(key(0)) is not None
    cache.put_many([(key(3), outputs(3))])
    assert [found is not None for found in await cache.get_many([key(n) for n in range(4)])] == [
        True,
        False,
        True,
        True,
    ]


async def test_memory_is_bounded_in_bytes() -> None:
    cache = MemoryCache(entries=10**6, max_bytes=100_000)
    cache.put_many([(key(n), outputs(n, hidden=5_000)) for n in range(50)])  # 10 kB each
    kept = [n for n in range(50) if cache.recall(key(n))]
    assert kept == list(range(41, 50))


def test_memory_does_not_keep_the_batch_alive() -> None:
    batch = np.zeros((64, 3), np.float32)
    cache = MemoryCache(entries=10, max_bytes=10**6)
    cache.put_many([(key(1), Outputs(batch[5], {1: batch[6]}))])
    kept = cache.recall(key(1))
    assert kept is not None
    assert kept.logits is not None
    assert kept.logits.base is None
    assert kept.hidden[1].base is None


async def test_memory_does_not_keep_the_reply_alive(
    redis_server: RedisProcess, make_cache: MakeCache
) -> None:
    await stored(make_cache(redis_server.url), 8, logits_only)
    cache = RedisCache(redis_server.url, MemoryCache(entries=10, max_bytes=10**6))
    found = await cache.get_many([key(n) for n in range(8)])
    await cache.close()
    for n, one in enumerate(found):
        kept = cache.recall(key(n))
        assert one is not None and kept is not None
        assert one.logits is not None and kept.logits is not None
        assert one.logits.tolist() == kept.logits.tolist() == [n] * 3
        assert kept.logits.base is None


# ---- Redis that works ----


async def test_two_servers_share_answers(redis_server: RedisProcess, make_cache: MakeCache) -> None:
    keys = await stored(make_cache(redis_server.url), 128)
    found = await make_cache(redis_server.url).get_many([*keys, key(999)])
    assert all(same(one, n) for n, one in enumerate(found[:-1]))
    assert found[-1] is None


@pytest.mark.skipif(redis_missing(), reason="needs a redis-server: apt-get install redis-server")
async def test_over_tls_with_a_password_in_another_database(make_cache: MakeCache, tmp_path: Path) -> None:
    authority, port = trustme.CA(), free_port()
    pair = authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    pair.write_to_path(tmp_path / "server.pem")
    pem = str(tmp_path / "server.pem")
    options = ["--tls-port", str(port), "--tls-cert-file", pem, "--tls-key-file", pem]
    secured = RedisProcess(*options, "--tls-auth-clients", "no", "--requirepass", "a secret")
    try:
        where = f"127.0.0.1:{port}/3?ssl_ca_certs={tmp_path / 'ca.pem'}"
        cache = make_cache(f"rediss://:a%20secret@{where}")
        keys = await stored(cache, 300)
        found = await asyncio.gather(*[cache.get_many(keys[start:]) for start in range(0, 300, 30)])
        assert all(same(one, n + 30 * part) for part, some in enumerate(found) for n, one in enumerate(some))
        wrong = make_cache(f"rediss://:another@{where}")
        assert await wrong.get_many(keys) == [None] * len(keys)
        assert not wrong.available
    finally:
        secured.kill()


async def test_answers_end_with_their_ttl(redis_server: RedisProcess, make_cache: MakeCache) -> None:
    await stored(make_cache(redis_server.url, ttl=60), 2)
    with redis.Redis.from_url(redis_server.url) as direct:
        assert 0 < direct.ttl(KEY_PREFIX + key(0)) <= 60


def test_breaker_lets_one_try_through_at_a_time() -> None:
    now = [100.0]
    breaker = Breaker(clock=lambda: now[0])
    assert breaker.permits()
    breaker.failed("test")
    assert not breaker.permits()
    now[0] += REST_SECONDS
    assert [breaker.permits(), breaker.permits()] == [True, False]
    breaker.succeeded()
    assert breaker.permits()
