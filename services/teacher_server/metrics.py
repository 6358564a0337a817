"""What the server counts and measures, for Prometheus. Each server has a registry of its own."""

import asyncio

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


class Metrics:
    """Every metric, by the name under which the code feeds it."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.texts = Counter(
            "teacher_texts", "Instances answered, by outcome", ["outcome"], registry=registry
        )  # outcome: charged, cached, joined, failed
        self.refusals = Counter(
            "teacher_refusals", "Requests refused, by reason", ["reason"], registry=registry
        )
        self.lookups = Counter(
            "teacher_cache_lookups", "Cache lookups, by result", ["result"], registry=registry
        )
        self.requests = Gauge("teacher_requests_open", "Predict requests open now", registry=registry)
        tasks = Gauge("teacher_tasks", "Tasks of the event loop alive now", registry=registry)
        tasks.set_function(lambda: len(asyncio.all_tasks()))
        self.queue_texts = Gauge("teacher_queue_texts", "Texts waiting for the model", registry=registry)
        self.expired = Counter(
            "teacher_expired_texts", "Texts dropped before the model ran", registry=registry
        )
        self.batch_texts = Histogram(
            "teacher_batch_texts", "Texts in one model run", buckets=TEXTS, registry=registry
        )
        self.padding_share = Histogram(
            "teacher_batch_padding_share", "Padding in all tokens of a run", buckets=SHARES, registry=registry
        )
        self.model_seconds = Histogram(
            "teacher_model_seconds", "Duration of one model run", buckets=SECONDS, registry=registry
        )

    def text(self) -> bytes:
        """The metrics in Prometheus's text format."""
        return generate_latest(self.registry)
