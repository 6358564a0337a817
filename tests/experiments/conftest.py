from pathlib import Path

import pytest
from made_up import FakeRun

from student_trainer.config import BenchSettings


@pytest.fixture
def run() -> FakeRun:
    return FakeRun()


@pytest.fixture
def settings(tmp_path: Path) -> BenchSettings:
    return BenchSettings(
        data="data",
        student="student",
        teacher="local:teacher",
        output=tmp_path / "grid",
        answers=tmp_path / "answers.sqlite",
        strategies=["entropy"],
        ratios=[0.3, 0.1],
        seeds=[0, 1],
    )
