"""What the server counts and measures, for Prometheus. Each server has a registry of its own.

Names and units are Prometheus's: seconds, `_total` for what only grows. deploy/monitoring/README.md lists
them all; `make docs` writes that table from here.
"""

import asyncio
import platform
from collections.abc import Iterable
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.process_collector import ProcessCollector

from teacher_api.errors import TABLE
from teacher_api.messages import Description

TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
OUTCOMES = ("charged", "cached", "joined", "failed")
BUILT_OF = {"version": "dynamic-kd", "torch": "torch", "transformers": "transformers", "grpcio": "grpcio"}


class Metrics:
    """Every metric, by the name under which the code feeds it. What is fed for each text is kept cheap."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(name, meaning, labels, registry=registry)

        def gauge(name: str, meaning: str, *labels: str) -> Gauge:
            return Gauge(name, meaning, labels, registry=registry)

        def histogram(name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, meaning, labels, buckets=buckets, registry=registry)

        self.requests = histogram(
            "teacher_request_duration_seconds",
            "Duration of requests, or of streams, by face and by the code that face answered with",
            SECONDS,
            "face",
            "method",
            "code",
        )
        self.open = gauge("teacher_requests_open", "Questions that wait for an answer now")
        self.streams = gauge("teacher_streams_open", "Streams open now")
        self.refusals = counter("teacher_refusals_total", "Questions refused, by the error's code", "reason")
        self.texts = counter(
            "teacher_texts_total",
            "Texts answered: charged, cached, joined to an identical one in flight, or failed",
            "outcome",
        )
        self.charged_queries = counter(
            "teacher_charged_queries_total", "Queries charged, by key's name", "key"
        )
        self.charged_units = counter(
            "teacher_charged_units_total", "Units of the price book charged, by key's name", "key"
        )
        self.charged_usd = counter(
            "teacher_charged_usd_total", "Dollars of the price book charged, by key's name", "key"
        )
        self.budget_up = gauge(
            "teacher_budget_up",
            "0 if the last question was refused for want of the accounts or the charge log",
        )
        self.lookups = counter("teacher_cache_lookups_total", "Texts looked up: hit or miss", "result")
        self.cache_seconds = histogram(
            "teacher_cache_duration_seconds", "Duration of one request's look-up", SECONDS
        )
        self.cache_up = gauge(
            "teacher_cache_up", "1 while the cache is used, 0 while a failed Redis is left alone"
        )
        self.queue_texts = gauge("teacher_queue_texts", "Texts waiting for the model now")
        self.queue_limit = gauge("teacher_queue_limit_texts", "Texts that may wait for the model")
        self.queue_age = gauge("teacher_queue_oldest_seconds", "How long the oldest waiting text has waited")
        self.queue_seconds = histogram(
            "teacher_queue_duration_seconds", "Wait of the text that waited longest in its batch", SECONDS
        )
        self.expired = counter("teacher_expired_texts_total", "Texts dropped before the model ran")
        self.batch_texts = histogram("teacher_batch_texts", "Texts in one batch", TEXTS)
        self.batch_fill = histogram(
            "teacher_batch_fill_ratio", "Share of the budget of tokens that a batch used", SHARES
        )
        self.tokens = counter("teacher_tokens_total", "Tokens that the model ran on: text or padding", "kind")
        self.model_seconds = histogram("teacher_model_duration_seconds", "Duration of one model run", SECONDS)
        tasks = gauge("teacher_tasks", "Tasks of the event loop alive now")
        tasks.set_function(lambda: len(asyncio.all_tasks()))
        self._begin()
        self.ready = gauge("teacher_ready", "1 while this server may be asked")
        self.build = Info(
            "teacher_build",
            "Always 1; its labels are the versions of this program and of what it runs on",
            registry=registry,
        )
        self.model = Info(
            "teacher_model", "Always 1; its labels: name, fingerprint, dtype, runtime", registry=registry
        )
        built_of = {name: version(distribution) for name, distribution in BUILT_OF.items()}
        self.build.info({"python": platform.python_version(), **built_of})

    def _begin(self) -> None:
        """Known labels count from 0: Prometheus sees no increase in a series that begins with 1."""
        for outcome in OUTCOMES:
            self.texts.labels(outcome)
        for result in ("hit", "miss"):
            self.lookups.labels(result)
        for kind in ("text", "padding"):
            self.tokens.labels(kind)
        for error in TABLE:
            self.refusals.labels(error.code)

    def serves(self, teacher: Description) -> None:
        """Shows which model it is, so that replicas that differ can be told apart."""
        self.model.info(
            {
                "name": teacher.name,
                "fingerprint": teacher.fingerprint,
                "dtype": teacher.dtype,
                "runtime": teacher.runtime,
            }
        )

    def ran(self, tokens: list[int], padded: int, budget: int, *, waited: float, seconds: float) -> None:
        """Notes one batch.

        Args:
            tokens: of each of its texts.
            padded: all tokens that the model ran on, padding included.
            budget: most of them that a batch may have.
            waited: seconds that its oldest text had waited.
            seconds: that the model took.
        """
        self.batch_texts.observe(len(tokens))
        self.batch_fill.observe(padded / budget)
        self.tokens.labels("text").inc(sum(tokens))
        self.tokens.labels("padding").inc(padded - sum(tokens))
        self.queue_seconds.observe(waited)
        self.model_seconds.observe(seconds)

    def refused(self) -> float:
        """Questions refused so far, for whatever reason."""
        return sum(
            sample.value
            for family in self.refusals.collect()
            for sample in family.samples
            if sample.name.endswith("_total")
        )

    def charged(self, key: str, queries: int, units: int, usd: float) -> None:
        """Adds to what a key has been charged since this server started."""
        self.charged_queries.labels(key).inc(queries)
        self.charged_units.labels(key).inc(units)
        self.charged_usd.labels(key).inc(usd)

    def text(self, keys: Iterable[str] = ()) -> bytes:
        """The metrics in Prometheus's text format; each of these keys counts from 0, also before a charge."""
        for key in keys:
            self.charged(key, 0, 0, 0)
        return generate_latest(self.registry)
