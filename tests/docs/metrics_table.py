"""deploy/monitoring/README.md's table of metrics, out of the metrics themselves: `make docs` writes it.

python tests/docs/metrics_table.py
"""

import asyncio
import re
from pathlib import Path

README = Path(__file__).parents[2] / "deploy/monitoring/README.md"
MARKS = re.compile(r"(<!-- metrics -->\n).*?(<!-- end -->)", flags=re.S)


def table() -> str:
    """A row a metric, by its name in Prometheus."""
    rows = sorted(" | ".join(row) for row in asyncio.run(_rows()))
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|", *[f"| {row} |" for row in rows]]
    return "\n".join(lines) + "\n"


async def _rows() -> list[tuple[str, ...]]:
    """One of them counts the tasks of the running loop."""
    from teacher_server.metrics import Metrics

    metrics = Metrics()
    labels = {one._name: one._labelnames for one in vars(metrics).values() if hasattr(one, "_labelnames")}
    return [
        (f"`{name(one.name, one.type)}`", one.type, ", ".join(labels.get(one.name, ())), one.documentation)
        for one in metrics.registry.collect()
    ]


def name(family: str, kind: str) -> str:
    """As a query writes it."""
    return family + {"counter": "_total", "info": "_info"}.get(kind, "")


def written(readme: str) -> str:
    """The README with its table as it should be."""
    text, count = MARKS.subn(lambda found: f"{found[1]}{table()}{found[2]}", readme)
    assert count == 1, "deploy/monitoring/README.md has no place for the metrics"
    return text


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
