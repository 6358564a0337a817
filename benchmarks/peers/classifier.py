"""What every peer serves: the plain loop, length-sorted batches of 32, padded to the longest."""

import os
from collections.abc import Sequence
from threading import Lock

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as our own server: the same care for all

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

BATCH = 32
FOLDER = os.environ["CLASSIFIER"]


class Classifier:
    def __init__(self) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(FOLDER)
        self._network = AutoModelForSequenceClassification.from_pretrained(FOLDER).eval()
        self._lock = Lock()

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        """Logits [texts, classes]."""
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        logits: list[list[float]] = [[]] * len(texts)
        with self._lock:
            for start in range(0, len(order), BATCH):
                rows = order[start : start + BATCH]
                inputs = self._tokenizer(
                    [texts[row] for row in rows],
                    padding=True,
                    truncation=True,
                    max_length=128,
                    return_tensors="pt",
                )
                for row, values in zip(rows, self._network(**inputs).logits.tolist(), strict=True):
                    logits[row] = values
        return logits
