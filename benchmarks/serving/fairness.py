"""What an interactive caller waits, alone and beside a bulk caller who keeps the queue long."""

import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import Setting, process_of, serving
from callers import Load, ask_for

SECONDS = 8.0
BULK = Load(4, 128)


def run(setting: Setting) -> dict[str, dict[str, Any]]:
    """p50 and p99 in ms: alone, beside bulk under a key of its own, and beside bulk under the same key."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        keys = [_key(folder / "keys", name) for name in ("interactive", "bulk")]
        flags = [*setting.flags, "--keys", str(folder / "keys")]
        server = stack.enter_context(serving(setting.folder, flags))
        person, crowd = (stack.enter_context(process_of(passive=False)) for _ in range(2))

        def waits(bulk_key: str | None) -> list[float]:
            if bulk_key:
                load = Load(BULK.callers, BULK.size, key=bulk_key)
                beside = crowd.submit(ask_for, server.grpc, load, setting.sentences[500:] * 4, SECONDS + 2)
            one = Load(1, 1, key=keys[0])
            seconds = person.submit(ask_for, server.grpc, one, setting.sentences[:500], SECONDS).result()
            if bulk_key:
                beside.result()
            return seconds

        cases = {"alone": None, "beside bulk, own key": keys[1], "beside bulk, same key": keys[0]}
        rounds = [
            {name: _quantiles(waits(key)) for name, key in cases.items()} for _ in range(setting.rounds)
        ]
    return {
        name: {
            "p50_ms": round(statistics.median(one[name][0] for one in rounds), 1),
            "p99_ms": round(statistics.median(one[name][1] for one in rounds), 1),
        }
        for name in cases
    }


def _key(file: Path, name: str) -> str:
    command = [sys.executable, "-m", "teacher_server", "keys", "create", name, "--keys", str(file)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return said.strip()


def _quantiles(seconds: Sequence[float]) -> tuple[float, float]:
    ordered = sorted(seconds)
    return 1000 * ordered[len(ordered) // 2], 1000 * ordered[int(0.99 * (len(ordered) - 1))]
