"""Answers in this process's memory."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

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
        return [self.recall(key) for key in keys]

    def recall(self, key: bytes) -> Outputs | None:
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put_many(self, pairs: Pairs) -> None:
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
    if all(array.base is None for array in outputs.arrays):
        return outputs
    hidden, attentions = (
        {layer: np.array(values) for layer, values in states.items()}
        for states in (outputs.hidden, outputs.attentions)
    )
    return Outputs(_copy(outputs.logits), hidden, _copy(outputs.mask), attentions)


def _copy(array: Array | None) -> Array | None:
    return None if array is None else np.array(array)
