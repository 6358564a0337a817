"""A Prometheus of the test's own, that reads deploy/monitoring/prometheus.yml and scrapes real servers."""

import math
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml
from processes import STOP_SECONDS, free_port, wait_for_port

MONITORING = Path(__file__).parents[2] / "deploy/monitoring"
PATIENCE_SECONDS = 30


class Prometheus:
    """A running one.

    Attributes:
        url: of its API.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/api/v1"

    def ask(self, path: str, **parameters: str) -> Any:
        answer = httpx.get(f"{self.url}/{path}", params=parameters, timeout=20)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def numbers(self, query: str) -> list[float]:
        """The query's values now, without those that are not numbers."""
        values = [float(one["value"][1]) for one in self.ask("query", query=query)["result"]]
        return [value for value in values if not math.isnan(value)]

    def wait(self, query: str, such: Callable[[list[float]], bool] = bool) -> list[float]:
        until = time.monotonic() + PATIENCE_SECONDS
        while not such(found := self.numbers(query)):
            assert time.monotonic() < until, f"{query}\nanswers {found}"
            time.sleep(0.25)
        return found


def prometheus_missing() -> bool:
    return shutil.which("prometheus") is None or shutil.which("promtool") is None


@contextmanager
def scraping(targets: Sequence[str], folder: Path) -> Iterator[Prometheus]:
    """As deployed, but for the servers' addresses and the pace."""
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config["rule_files"] = [str(MONITORING / name) for name in config["rule_files"]]
    (job,) = config["scrape_configs"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": list(targets)}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (folder / "prometheus.log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            wait_for_port(port, PATIENCE_SECONDS)
            yield Prometheus(port)
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)
