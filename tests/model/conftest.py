"""Classifiers on disk: tiny ones of each architecture, and the real encoder with a random head."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from tiny_models import MINILM, Plain, save
from transformers import AutoModelForSequenceClassification, AutoTokenizer


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads gain nothing on models so small, and beside other work they wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """kind -> folder of its classifier, made once."""
    root = tmp_path_factory.mktemp("tiny")

    def folder(kind: str) -> Path:
        return root / kind if (root / kind).exists() else save(root / kind, kind)

    return folder


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real encoder (6 layers x 384) with a random head of three classes."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("minilm")
    AutoModelForSequenceClassification.from_pretrained(MINILM, num_labels=3).save_pretrained(folder)
    AutoTokenizer.from_pretrained(MINILM).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def plain() -> Callable[[Path], Plain]:
    return Plain
