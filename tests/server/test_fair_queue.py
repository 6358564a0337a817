"""Whose turn it is: shares in tokens, order within a caller, nobody starves."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from teacher_server.fair_queue import TURN_TOKENS, FairQueue
from teacher_server.model import Encoded


@dataclass(eq=False)
class Text:
    caller: str
    encoded: Encoded
    number: int
    until: float = 1.0

    def expired(self, now: float) -> bool:
        return now >= self.until


def texts(caller: str, lengths: Sequence[int], until: float = 1.0) -> list[Text]:
    return [Text(caller, Encoded([1] * length), number, until) for number, length in enumerate(lengths)]


def batches(queue: FairQueue[Text], tokens: int = 1000, *, padded: bool = False) -> list[list[Text]]:
    taken = []
    while queue:
        taken.append(queue.take(1000, tokens, padded=padded))
    return taken


def tokens_of(batch: Sequence[Text]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for text in batch:
        sums[text.caller] += text.encoded.tokens
    return sums


@pytest.mark.parametrize("padded", [False, True])
def test_shares_are_equal_in_tokens_whatever_the_length(padded: bool) -> None:
    queue: FairQueue[Text] = FairQueue()
    queue.put(texts("long", [100] * 400))
    queue.put(texts("short", [10] * 4000))
    given: Counter[str] = Counter()
    for _ in range(50):
        given += tokens_of(queue.take(1000, 500, padded=padded))
        assert abs(given["long"] - given["short"]) <= 2 * TURN_TOKENS + 500


@pytest.mark.parametrize("padded", [False, True])
def test_one_who_asks_little_is_in_the_next_batch(padded: bool) -> None:
    queue: FairQueue[Text] = FairQueue()
    queue.put(texts("bulk", [20] * 2000))
    for _ in range(20):
        queue.take(64, 1024, padded=padded)
        queue.put(texts("interactive", [20]))
        assert "interactive" in tokens_of(queue.take(64, 1024, padded=padded))


def test_a_crowd_waits_one_turn_of_each_other() -> None:
    queue: FairQueue[Text] = FairQueue()
    for number in range(10):
        queue.put(texts(f"bulk {number}", [16] * 500))
    queue.put(texts("late", [16]))
    order = [text for batch in batches(queue) for text in batch]
    before = order[: next(place for place, text in enumerate(order) if text.caller == "late")]
    assert max(tokens_of(before).values()) <= TURN_TOKENS


def test_order_within_a_caller_and_all_are_served() -> None:
    queue: FairQueue[Text] = FairQueue()
    queue.put(texts("a", [5, 90, 30] * 50))
    queue.put(texts("b", [40] * 99))
    order = [text for batch in batches(queue, 200) for text in batch]
    for caller, count in (("a", 150), ("b", 99)):
        assert [text.number for text in order if text.caller == caller] == list(range(count))
    assert len(queue) == 0


def test_budget_and_count_bound_a_batch() -> None:
    queue: FairQueue[Text] = FairQueue()
    queue.put(texts("a", [60, 30, 20, 1]))
    assert [text.number for text in queue.take(9, 100, padded=False)] == [0, 1]
    assert [text.number for text in queue.take(1, 100, padded=False)] == [2]
    queue.put(texts("b", [5000]))
    assert [len(batch) for batch in batches(queue, 100)] == [1, 1]  # too long for any: alone


def test_padding_goes_by_length_and_each_pays_for_its_own() -> None:
    queue: FairQueue[Text] = FairQueue()
    queue.put(texts("a", [50, 5, 5]))
    queue.put(texts("b", [49, 6, 48]))
    assert sorted(text.encoded.tokens for text in queue.take(3, 1000, padded=True)) == [48, 49, 50]
    assert sorted(text.encoded.tokens for text in queue.take(3, 18, padded=True)) == [5, 5, 6]


def test_expired_leave_and_the_others_keep_their_places() -> None:
    queue: FairQueue[Text] = FairQueue()
    queue.put(texts("a", [5] * 3, until=0.0) + texts("a", [7] * 2))
    queue.put(texts("gone", [5], until=0.0))
    assert len(queue.drop_expired(0.5)) == 4
    assert [text.encoded.tokens for text in queue] == [7, 7]
    assert queue.take(9, 100, padded=False) and not queue.take(9, 100, padded=True)


def test_ahead_are_ones_own_and_of_each_other_as_many() -> None:
    queue: FairQueue[Text] = FairQueue()
    queue.put([*texts("a", [1] * 10), *texts("b", [1] * 3)])
    assert queue.ahead_of("c", 2) == 2 + 2
    assert queue.ahead_of("b", 1) == 3 + 4
    assert queue.ahead_of("a", 5) == 10 + 3
