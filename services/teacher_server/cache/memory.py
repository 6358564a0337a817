"""Answers in this process's memory."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from teacher_api.messages import Outputs
from teacher_api.tensors import Array

Pairs = Sequence[tuple[bytes, Outputs]]

ENTRY_BYTES = 600  # what an entry costs beside its numbers: key, objects, table


class MemoryCache:
    """Least recently used answers go first, once there are too many or they are too large."""

    available = True

    def __init__(self, entries: int, max_bytes: int) -> None:
        self._entries, self._max_bytes = entries, max_bytes
        self._kept: OrderedDict[bytes, tuple[Outputs, int]] = OrderedDict()
        self._bytes = 0

    async def get_many(self, keys: Sequence[bytes]) -> list[Outputs | None]:
        return [*map(self.recall, keys)] if self._kept else [None] * len(keys)

    def recall(self, key: bytes) -> Outputs | None:
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put_many(self, pairs: Iterable[tuple[bytes, Outputs]]) -> None:
        if not self._entries:
            return
        for key, outputs in pairs:
            self._forget(key)
            owned = _owned(outputs)
            size = ENTRY_BYTES + owned.nbytes
            self._kept[key] = (owned, size)
            self._bytes += size
        while self._kept and (len(self._kept) > self._entries or self._bytes > self._max_bytes):
            self._forget(next(iter(self._kept)))

    def _forget(self, key: bytes) -> None:
        _, size = self._kept.pop(key, (None, 0))
        self._bytes -= size

    async def close(self) -> None:
        """Nothing is written elsewhere."""


def _owned(outputs: Outputs) -> Outputs:
    """Without views: a view of one row would keep the whole batch's memory alive."""
    logits, hidden, mask, attentions = outputs
    return Outputs(
        None if logits is None else _copy(logits),
        _copies(hidden),
        None if mask is None else _copy(mask),
        _copies(attentions),
    )


def _copies(states: Mapping[int, Array]) -> Mapping[int, Array]:
    return {layer: _copy(values) for layer, values in states.items()} if states else states


def _copy(array: Array) -> Array:
    return array if array.base is None else array.copy()
