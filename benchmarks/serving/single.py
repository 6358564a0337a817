"""One server and little to do: a single text at a time, idle CPU, memory, start, and a busy neighbour."""

import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from bench import Setting, add_plain, measure, plain_model, process_of, ratios_to_plain, serving
from callers import Load, ask_all, ask_for

IDLE_SECONDS = 5
TEXTS = 200  # at most


def run(setting: Setting) -> dict[str, dict[str, Any]]:
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(setting.folder, setting.flags))
        ready = time.perf_counter() - started
        report = {"start until ready, warm": {"value": round(ready, 1), "unit": "s"}}
        worker = stack.enter_context(process_of(passive=True))
        callers = stack.enter_context(process_of(passive=False))
        one = Load(1, 1)
        callers.submit(ask_all, server.grpc, one, setting.sentences[-20:]).result()
        served, alone, count = [], [], min(TEXTS, setting.count)
        for number in range(setting.rounds):
            texts = setting.sentences[number * count : (number + 1) * count]
            served.append(statistics.median(callers.submit(ask_for, server.grpc, one, texts, 60).result()))
            alone.append(worker.submit(plain_single, setting.folder, texts).result())
        ratio = statistics.median(a / b for a, b in zip(served, alone, strict=True))
        report["single text"] = {"value": round(1000 * statistics.median(served), 2), "unit": "ms"}
        report["single text, to the plain forward"] = {"value": round(ratio, 3), "unit": "x"}
        callers.submit(ask_all, server.grpc, Load(8, 32), setting.sentences[: setting.count]).result()
        before = server.cpu_seconds()
        time.sleep(IDLE_SECONDS)
        idle = 100 * (server.cpu_seconds() - before) / IDLE_SECONDS
        report["idle CPU"] = {"value": round(idle, 2), "unit": "% of a core"}
        report["memory"] = {"value": round(server.resident_bytes() / 1e9, 3), "unit": "GB"}
    return report | _beside_a_neighbour(setting)


def plain_single(folder: str, texts: Sequence[str]) -> float:
    """Median seconds of the plain forward of one text, tokenised within."""
    import torch  # noqa: PLC0415

    tokenizer, network = plain_model(folder)
    seconds = []
    with torch.inference_mode():
        for text in texts:
            started = time.perf_counter()
            network(**tokenizer(text, truncation=True, max_length=128, return_tensors="pt"))
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _beside_a_neighbour(setting: Setting) -> dict[str, dict[str, Any]]:
    """8 x 32 with one busy process beside, against the faster plain loop beside the same."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_busy())
        runs: dict[str, Any] = {}
        add_plain(runs, setting.folder, stack)
        callers = stack.enter_context(process_of(passive=False))
        server = stack.enter_context(serving(setting.folder, setting.flags))
        runs["8 callers x 32"] = lambda texts: callers.submit(
            ask_all, server.grpc, Load(8, 32), texts
        ).result()
        ratios = ratios_to_plain(measure(runs, setting))
    name = "8 callers x 32 beside a busy process, to plain beside it"
    return {name: {"value": ratios["8 callers x 32"]["x_plain"], "unit": "x"}}


@contextlib.contextmanager
def _busy() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()
