"""Answers by content key: in this process's memory, and in a Redis that many servers share.

Trouble with a cache never changes an answer and never raises: what cannot be read is a miss.
"""

from collections.abc import Sequence
from typing import Protocol

from teacher_api.messages import Outputs
from teacher_server.cache.memory import MemoryCache, Pairs


class Cache(Protocol):
    """What the pipeline asks of a cache."""

    async def get_many(self, keys: Sequence[bytes]) -> list[Outputs | None]:
        """The answers in the order of the keys; None for a miss."""

    @property
    def available(self) -> bool:
        """False while the shared part is left alone after a failure."""

    def recall(self, key: bytes) -> Outputs | None:
        """What this process itself remembers, without waiting."""

    def put_many(self, pairs: Pairs) -> None:
        """Remembers at once in this process, and elsewhere as soon as may be."""

    async def close(self) -> None:
        """Waits for what is still being written."""


def open_cache(location: str, *, entries: int, max_bytes: int, ttl_seconds: int) -> Cache:
    """The cache that a setting names: `memory`, or the address of a Redis.

    Raises:
        ValueError: the address cannot be read; its text may quote a password.
    """
    memory = MemoryCache(entries, max_bytes)
    if location == "memory":
        return memory
    from teacher_server.cache.redis_cache import RedisCache  # noqa: PLC0415  # it takes time and memory

    return RedisCache(location, memory, ttl_seconds)
