"""Promise 13: processes that spend the same budgets in one Redis, one of them killed, and never too much."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from budget_asks import DAY, TARIFF, limits_of
from redis import Redis

from teacher_server.quota.budgets import NANO, Spent
from teacher_server.quota.redis_budgets import PREFIX

SPENDER = Path(__file__).with_name("spender.py")
PROCESSES = 8
PATIENCE_SECONDS = 150


@dataclass
class Together:
    """What became of some histories: queries that all were told, and how often one was refused."""

    charged: int = 0
    refused: int = 0
    reads: int = 0
    cuts: int = 0


def spend_together(url: str, first: int, histories: int) -> Together:
    """Runs histories first, first + 1, …; at every read, and at the end, no budget is overspent, and what is
    charged is what was told, but where a reply was lost with its connection."""
    command = [sys.executable, str(SPENDER), url]
    seeds, done = range(first, first + histories), Together()
    with Redis.from_url(url, decode_responses=True) as redis:
        redis.flushall()
        running = [
            subprocess.Popen(
                [*command, str(n), str(first), str(histories)], stdout=subprocess.PIPE, text=True
            )
            for n in range(PROCESSES)
        ]
        chance, until = random.Random(first + 1), time.monotonic() + PATIENCE_SECONDS
        while any(one.poll() is None for one in running) and time.monotonic() < until:
            for seed in seeds:
                assert_within(redis, seed)
            done.reads += 1
            if chance.random() < 0.05:
                redis.client_kill_filter(_type="normal", skipme=True)
                done.cuts += 1
            if running[0].poll() is None and redis.exists(f"{PREFIX}:{{h{first + 2}}}"):
                running[0].kill()
        reports = [json.loads(out) for one in running if (out := one.communicate(timeout=20)[0])]
        assert running[0].returncode == -signal.SIGKILL
        assert len(reports) == PROCESSES - 1
        for seed in seeds:
            assert_within(redis, seed)
            total = Counter[str]()
            for report in reports:
                total.update(report[f"h{seed}"])
            spent = counts(redis, seed, DAY)["queries"]
            assert spent > 0 and total["refused"]
            assert total["charged"] <= spent
            if seed > first + 3 and not total["lost"]:
                assert total["charged"] == spent  # the killed one was gone by then
            done.charged += total["charged"]
            done.refused += total["refused"]
    return done


def counts(redis: "Redis", seed: int, period: str) -> dict[str, int]:
    found = redis.hgetall(f"{PREFIX}:{{h{seed}}}:{period}")
    return {name: int(found.get(name, 0)) for name in Spent.__dataclass_fields__}


def assert_within(redis: "Redis", seed: int) -> None:
    limits = limits_of(seed)
    now = counts(redis, seed, DAY if limits.per == "day" else DAY[:7])
    assert limits.queries is None or now["queries"] + now["flying_queries"] <= limits.queries
    assert limits.units is None or now["units"] + now["flying_units"] <= limits.units
    assert limits.usd is None or now["nano"] <= limits.usd * NANO
    assert now["nano"] == TARIFF.usd(now["units"]) * NANO  # one month, from its first unit
    assert min(now.values()) >= 0
