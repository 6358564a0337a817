"""The served teacher against a plain loop in process, and more: ratios of one run.

    python benchmarks/serving [TOPIC ...] [--rounds 5] [--json FILE] [server flags, such as --threads 2]

Topics: throughput, hits, single, fairness, peers (its own set-up: `make bench-serving`); without any,
the first four. The model is MiniLM (6 x 384) with a head of three classes; the sentences are English,
of 8-60 tokens (mean 23), none asked twice. "Plain" is eager transformers with SDPA in length-sorted
batches of 32, padded to the longest: once with OpenMP's own way of waiting, which spins, and once
passive, as the server runs; beside other work the first falls far behind. A ratio is to the faster of
the two. Server, callers and plain loops are processes of their own, and each round measures all of them
one after another, so that a noisy machine disturbs them alike.
"""

import argparse
import json
import os
import tempfile
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = os.environ["TQDM_DISABLE"] = "1"

from bench import Setting, prepare, table

TOPICS = ("throughput", "hits", "single", "fairness", "peers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("topics", nargs="*", help=", ".join(TOPICS))
    parser.add_argument("--rounds", type=int, default=5, help="of which the medians are taken")
    parser.add_argument("--sentences", type=int, default=1024, help="of each measurement")
    parser.add_argument(
        "--json", type=Path, help="where to write the results, too; beside it, a table as .md"
    )
    options, flags = parser.parse_known_args()
    if unknown := set(options.topics) - set(TOPICS):
        parser.error(f"no topic {', '.join(sorted(unknown))}: take {', '.join(TOPICS)}")
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(options.rounds, options.sentences, folder, prepare(Path(folder)), flags)
        report = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "rounds": options.rounds}
        report |= {"sentences": options.sentences, "server_flags": flags}
        shown = []
        for topic in options.topics or TOPICS[:4]:
            report[topic] = import_module(topic).run(setting)
            shown.append(f"## {report['date']} {topic}\n\n{table(report[topic])}\n")
            print(shown[-1], flush=True)
            if options.json:  # after each: what is measured is kept, whatever comes
                options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
                options.json.with_suffix(".md").write_text("\n".join(shown), encoding="utf-8")


if __name__ == "__main__":
    main()
