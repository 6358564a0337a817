"""Budgets at length: many histories, in each twenty of which a process is killed."""

from collections.abc import Callable
from typing import Any

from histories import spend_together
from processes import RedisProcess

Record = Callable[[str, Any], None]

HISTORIES, AT_ONCE = 200, 20


def test_two_hundred_histories_never_overspend(redis_server: RedisProcess, record_property: Record) -> None:
    record_property("promise", "never over budget")
    record_property(
        "size", "200 histories of 8 processes: cancelled, lost, asked twice, cut, ten killed by -9"
    )
    done = [spend_together(redis_server.url, first, AT_ONCE) for first in range(0, HISTORIES, AT_ONCE)]
    charged, refused, reads, cuts = (
        sum(getattr(one, name) for one in done) for name in ("charged", "refused", "reads", "cuts")
    )
    record_property(
        "result",
        f"{charged:,} charged, {refused:,} refused, {cuts} cuts; overspent 0 at {reads * AT_ONCE:,} reads",
    )
