"""Answers that say which key they belong to, and what happens to them on their way to and from Redis."""

import asyncio
import random
from collections.abc import Callable

import fault_proxy
import numpy as np
from fault_proxy import FaultProxy

from teacher_api.messages import Outputs
from teacher_api.sealed import seal
from teacher_server.cache.memory import MemoryCache
from teacher_server.cache.redis_cache import Breaker, RedisCache

MakeCache = Callable[..., RedisCache]

NO_FRONT = (0, 0)  # entries and bytes: everything is asked of Redis


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def outputs(number: int, hidden: int = 4) -> Outputs:
    states = np.full(hidden, number + 0.5, np.float16)
    return Outputs(np.full(3, number, np.float32), {2: states})


def logits_only(number: int) -> Outputs:
    return Outputs(np.full(3, number, np.float32))


def same(found: Outputs | None, number: int) -> bool:
    return (
        found is not None
        and found.logits is not None
        and found.logits.tolist() == [number] * 3
        and found.hidden[2].tolist() == [number + 0.5] * 4
    )


async def stored(cache: RedisCache, count: int, make: Callable[[int], Outputs] = outputs) -> list[bytes]:
    keys = [key(n) for n in range(count)]
    cache.put_many([(k, make(n)) for n, k in enumerate(keys)])
    await asyncio.wait(cache._running)
    return keys


async def storm(redis_port: int, gets: int) -> tuple[int, int]:
    """Gets through a network that delays, swaps and cuts off replies, a third of them cancelled.

    Returns how many found their own answer, and how many another one.
    """
    rng = random.Random(3)
    right = wrong = 0
    async with FaultProxy(redis_port) as proxy:
        cache = RedisCache(f"redis://127.0.0.1:{proxy.port}/0", MemoryCache(*NO_FRONT))
        keys = await stored(cache, 64)
        for number in range(gets // 30):
            # Half a reply costs a fifth of a second, so there are fewer of these.
            kinds = (fault_proxy.delayed, fault_proxy.swapped, fault_proxy.truncated)
            (proxy.fault,) = rng.choices(kinds, (6, 3, 1)) if number % 2 else (fault_proxy.delayed,)
            cache._breaker = Breaker()  # ask again each time: what is tested lies behind the breaker
            asked = [rng.randrange(len(keys)) for _ in range(30)]
            tasks = [asyncio.create_task(cache.get_many([keys[n]])) for n in asked]
            await asyncio.sleep(rng.random() / 100)
            for task in rng.sample(tasks, 10):
                task.cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            found = [(n, one[0]) for n, one in zip(asked, answers, strict=True) if isinstance(one, list)]
            right += sum(same(one, n) for n, one in found)
            wrong += sum(one is not None and not same(one, n) for n, one in found)
        await cache.close()
    return right, wrong


def mutated(value: bytes, rng: random.Random) -> bytes:
    """Cut, lengthened, bits flipped, another question's, or somebody else's."""
    at = rng.randrange(len(value))
    ways = (
        value[:at],
        value + rng.randbytes(3),
        value[:at] + bytes([value[at] ^ 1 << rng.randrange(8)]) + value[at + 1 :],
        seal(key(rng.randrange(10**6, 10**7)), outputs(1)),
        rng.randbytes(at),
        b"",
        value[:40] + rng.randbytes(len(value) - 40),
    )
    return rng.choice(ways)
