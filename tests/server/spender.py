"""One of many processes that spend the same budgets, with seeded faults: histories of a promise.

    python spender.py REDIS_URL PROCESS FIRST_SEED HISTORIES

Prints {"NAME": {"charged": queries told, "refused": how often}} of each history's key.
"""

import asyncio
import hashlib
import json
import random
import sys

from budget_asks import TARIFF, ask_of, limits_of

from teacher_api.errors import BudgetSpentError, NotReadyError, OverloadedError
from teacher_server.quota.redis_budgets import RedisBudgets

TASKS, STEPS, TEXTS = 4, 8, 40


async def spend(budgets: RedisBudgets, seed: int, chance: random.Random, told: dict[str, int]) -> None:
    """Asks until refused, as a client with retries does: the same operation again when an answer is lost."""
    for _ in range(STEPS):
        operation = f"op{chance.randrange(6)}" if chance.random() < 0.7 else ""
        texts = chance.sample(range(TEXTS), chance.randint(1, 8))
        ask = ask_of(f"h{seed}", limits_of(seed), operation, texts, [chance.randint(0, 3) for _ in texts])
        fault = chance.choice(["", "", "", "cancel", "die", "twice"])
        try:
            grant = await budgets.reserve(ask)
            charged = [n for n, units in enumerate(ask.units) if units and n not in grant.paid]
            if not grant.ticket or fault == "die":
                continue  # an answerer that died: its reservation stands until the lease ends
            if fault == "cancel":
                charged = []
            charge = await budgets.settle(ask, grant.ticket, charged)
            if fault == "twice":  # the reply was lost
                assert await budgets.settle(ask, grant.ticket, charged) == charge
            told["charged"] += charge.queries
        except (BudgetSpentError, OverloadedError):
            told["refused"] += 1
        except NotReadyError:
            told["lost"] += 1  # the connection was cut: by then it may have been charged


async def main(url: str, process: int, first: int, histories: int) -> None:
    budgets = RedisBudgets(url, TARIFF)
    report = {}
    for seed in range(first, first + histories):
        told = {"charged": 0, "refused": 0, "lost": 0}
        name = hashlib.sha256(f"{seed} {process}".encode()).digest()
        chance = random.Random(name)
        await asyncio.gather(
            *(spend(budgets, seed, random.Random(chance.random()), told) for _ in range(TASKS))
        )
        report[f"h{seed}"] = told
    await budgets.close()
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
