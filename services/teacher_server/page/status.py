"""What a server has done so far, in figures that a page can take differences of."""

import time
from typing import Any

from teacher_api.messages import Usage
from teacher_server.health import Health
from teacher_server.metrics import OUTCOMES, Metrics


def status(metrics: Metrics, health: Health) -> dict[str, Any]:
    """Counts since the server started, what is so now, and `seconds` on its own clock."""

    def value(name: str, **labels: str) -> float:
        return metrics.registry.get_sample_value(f"teacher_{name}", labels) or 0.0

    return {
        "seconds": time.monotonic(),
        "ready": health.ready,
        "reason": health.reason,
        "texts": {outcome: value("texts_total", outcome=outcome) for outcome in OUTCOMES},
        "hits": value("cache_lookups_total", result="hit"),
        "misses": value("cache_lookups_total", result="miss"),
        "cache_up": bool(value("cache_up")),
        "refused": metrics.refused(),
        "model_seconds": value("model_duration_seconds_sum"),
        "waiting": value("queue_texts"),
        "waiting_limit": value("queue_limit_texts"),
        "oldest_seconds": value("queue_oldest_seconds"),
        "open": value("requests_open"),
        "streams": value("streams_open"),
    }


def used(usage: Usage) -> dict[str, str]:
    """What a key has used, as it is shown."""
    left = {"queries": usage.remaining, "units": usage.remaining_units}
    shown = [f"{count:,} {name}" for name, count in left.items() if count is not None]
    shown += [f"${usage.remaining_usd}"] if usage.remaining_usd is not None else []
    return {
        "queries": f"{usage.queries:,}",
        "usd": f"${usage.usd}" if usage.usd else "no price",
        "left": ", ".join(shown) or "no limit",
        "asked": f"{usage.asked:,}",
        "free": f"{usage.cached + usage.joined:,}",
        "failed": f"{usage.failed:,}",
    }
