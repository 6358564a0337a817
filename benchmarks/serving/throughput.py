"""Sentences per second that the model must compute, as ratios to the plain loop of the same round."""

import contextlib
from functools import partial
from typing import Any

from bench import PLAIN, Setting, add_plain, measure, process_of, ratios_to_plain, serving
from callers import Load, ask_all

LAYERS = (2, 3, 4, 5, 6)
WHOLE = {"layers": LAYERS, "pooling": "none", "hidden_dtype": "float16"}
LOADS = {
    "32 callers x 1": Load(32, 1),
    "8 callers x 32": Load(8, 32),
    "8 callers x 128": Load(8, 128),
    "4 streams of 32": Load(4, 32, stream=True),
    "8 x 32, 5 layers, [CLS]": Load(8, 32, want={"layers": LAYERS}),
    "4 streams of 32, 5 layers, whole, float16": Load(4, 32, want=WHOLE, stream=True),
}
INT8 = ("32 callers x 1", "8 callers x 32")


def run(setting: Setting) -> dict[str, dict[str, Any]]:
    """Interleaved: both plain loops, every load, and the first two again on a server with int8."""
    with contextlib.ExitStack() as stack:
        runs: dict[str, Any] = {}
        add_plain(runs, setting.folder, stack)
        callers = stack.enter_context(process_of(passive=False))

        def add(name: str, load: Load, address: str) -> None:
            asking = partial(callers.submit, ask_all, address, load)
            runs[name] = lambda texts: asking(texts).result()

        server = stack.enter_context(serving(setting.folder, setting.flags))
        for name, load in LOADS.items():
            add(name, load, server.grpc)
        small = stack.enter_context(serving(setting.folder, [*setting.flags, "--dtype", "int8"]))
        for name in INT8:
            add(f"int8, {name}", LOADS[name], small.grpc)
        report = ratios_to_plain(measure(runs, setting))
    logits_only = report["8 callers x 32"]["sentences_per_second"]
    for name, row in report.items():
        if name not in PLAIN and LOADS.get(name, LOADS["32 callers x 1"]).want:
            row["x_logits_only"] = round(row["sentences_per_second"] / logits_only, 3)
    return report
