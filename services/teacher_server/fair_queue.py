"""What waits for the model: a line for each caller, served in turn by tokens (deficit round robin).

Each turn lets a caller send as many tokens as it has credit, and what it did not use it keeps while it
waits; so callers get equal shares of the model whatever the size of their texts and requests, and one
who asks little waits for no more than one turn of each other. Within a caller the oldest goes first.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from teacher_server.model import Encoded

TURN_TOKENS = 256  # about ten sentences: several callers fit into one batch


class Waiting(Protocol):
    """What can stand in line."""

    caller: str
    encoded: Encoded

    def expired(self, now: float) -> bool: ...


Item = TypeVar("Item", bound=Waiting)


@dataclass(slots=True)
class _Line(Generic[Item]):
    items: deque[Item] = field(default_factory=deque)
    credit: int = TURN_TOKENS  # tokens


class FairQueue(Generic[Item]):
    """Not safe in several threads: its owner locks."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line[Item]] = {}  # in the order of their turns

    def __len__(self) -> int:
        return sum(len(line.items) for line in self._lines.values())

    def __iter__(self) -> Iterator[Item]:
        return (item for line in self._lines.values() for item in line.items)

    def ahead_of(self, caller: str, count: int) -> int:
        """How many have their turn before the last of so many more of this caller's: its own, and of
        each other caller no more than as many."""
        own = len(self._lines[caller].items) if caller in self._lines else 0
        others = (line for name, line in self._lines.items() if name != caller)
        return own + sum(min(len(line.items), own + count) for line in others)

    def put(self, items: Iterable[Item]) -> None:
        """A caller who was not waiting is the last to have a turn."""
        for item in items:
            self._lines.setdefault(item.caller, _Line()).items.append(item)

    def drop_expired(self, now: float) -> list[Item]:
        """Takes out what nobody waits for any more."""
        gone = [item for item in self if item.expired(now)]
        for item in gone:
            self._remove(item)
        return gone

    def take(self, most: int, tokens: int, *, padded: bool) -> list[Item]:
        """The next batch: at least one where any wait, at most `most`, within a budget of tokens if it can.

        Args:
            padded: a batch costs its longest text times its size: the first in turn goes with those
                nearest to it in length, whosever they are; each is paid for by its own caller.
        """
        batch: list[Item] = []
        total = longest = 0
        for item in self._nearest() if padded else self._in_turn():
            total, longest = total + item.encoded.tokens, max(longest, item.encoded.tokens)
            if batch and (longest * (len(batch) + 1) if padded else total) > tokens:
                break
            self._remove(item)
            batch.append(item)
            if len(batch) == most:
                break
        return batch

    def _in_turn(self) -> Iterator[Item]:
        """Whoever is next; its reader removes it before it asks again."""
        while self._lines:
            caller, line = next(iter(self._lines.items()))
            if line.items[0].encoded.tokens <= line.credit:
                yield line.items[0]
            else:
                line.credit += TURN_TOKENS
                self._lines[caller] = self._lines.pop(caller)  # to the end

    def _nearest(self) -> Iterator[Item]:
        first = next(self._in_turn(), None)
        if first is not None:
            length = first.encoded.tokens
            yield from sorted(self, key=lambda item: (item is not first, abs(item.encoded.tokens - length)))

    def _remove(self, item: Item) -> None:
        line = self._lines[item.caller]
        line.items.remove(item)
        line.credit -= item.encoded.tokens
        if not line.items:
            del self._lines[item.caller]
