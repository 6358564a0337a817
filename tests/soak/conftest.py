"""The long tests, run by `make soak`; what each one found is kept in docs/soak/DATE.md.

A test says three things of itself, with pytest's own `record_property`:

    record_property("promise", "no leak")
    record_property("size", "1,000,000 calls, 10 % of them wrong, 10 % cancelled")
    record_property("result", "memory + 1.3 %")

Tests marked by their folder: `pytest` alone leaves tests/soak out, `pytest -m soak tests/soak` runs it.
"""

import datetime
import os
import platform
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[2] / "docs" / "soak"
HEAD = """# {day}: `make soak`

{cores} cores, Python {python}. A row a test, in the order in which they ended.

| promise | size | result | seconds | held |
|---|---|---|---|---|
"""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    told = dict(report.user_properties)
    if report.when == "call" and "promise" in told:
        held = "yes" if report.passed else "NO"
        cells = [told["promise"], told["size"], told.get("result", "none"), f"{report.duration:.0f}", held]
        _keep(f"| {' | '.join(map(str, cells))} |\n")


def _keep(row: str) -> None:
    day = datetime.datetime.now(datetime.UTC).date()
    file = RESULTS / f"{day}.md"
    RESULTS.mkdir(exist_ok=True)
    if not file.exists():
        file.write_text(HEAD.format(day=day, cores=os.cpu_count(), python=platform.python_version()))
    with file.open("a") as table:
        table.write(row)
