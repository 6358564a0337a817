"""The benchmarks' scripts, which no other test runs, can at least be begun."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = [*sorted(BENCHMARKS.glob("*.py")), BENCHMARKS / "serving"]
TOPICS = sorted(path.stem for path in (BENCHMARKS / "serving").glob("*.py") if path.stem != "__main__")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_says_how_to_use_it(script: Path) -> None:
    if script.stem == "checkpoints" and importlib.util.find_spec("onnx") is None:
        pytest.skip("it converts a checkpoint with onnx, which nothing else needs: pip install onnx")
    done = subprocess.run(
        [sys.executable, str(script), "--help"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")


def test_every_topic_of_serving_can_be_imported() -> None:
    """The command imports a topic when it comes to it, perhaps an hour later."""
    program = f"import sys; sys.path.insert(0, {str(BENCHMARKS / 'serving')!r}); import {', '.join(TOPICS)}"
    subprocess.run([sys.executable, "-c", program], timeout=120, check=True)
