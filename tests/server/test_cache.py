"""The caches that work: bounds of the memory, a real Redis that is shared, a breaker."""

import numpy as np
import redis
from cached import MakeCache, key, logits_only, outputs, same, stored
from processes import RedisProcess

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
