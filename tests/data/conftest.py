"""Folders of rows, written by each test; copies in Arrow go to the test's own cache."""

from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from student_trainer.data import DataSettings, TaskData, load


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "task"
    made.mkdir()
    return made


@pytest.fixture
def loaded(folder: Path) -> Callable[..., TaskData]:
    return lambda **settings: load(DataSettings(data=str(folder), **settings))
