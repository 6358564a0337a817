"""Checkpoints that are whole or not there: written beside, flushed to disk, then renamed.

Accelerate saves what a step changes: weights (safetensors), optimizer, schedule, random state. What a
run has asked is not in here but in the answers file, which is never behind.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from accelerate import Accelerator

_PREFIX = "checkpoint-"


@dataclass(frozen=True)
class Progress:
    """Where a run is: the next step, the teacher it asks, and the settings that it must go on with."""

    step: int
    fingerprint: str
    recipe: str


def save(accelerator: Accelerator, folder: Path, progress: Progress) -> None:
    """Writes `folder/checkpoint-STEP` in one atomic move; then older ones go."""
    unfinished = folder / f".writing-{progress.step}"
    shutil.rmtree(unfinished, ignore_errors=True)
    accelerator.save_state(str(unfinished))
    (unfinished / "progress.json").write_text(json.dumps(asdict(progress)))
    _flush(unfinished)
    final = folder / f"{_PREFIX}{progress.step:08d}"
    unfinished.rename(final)
    _flush_entry(folder)
    for old in folder.glob(f"{_PREFIX}*"):
        if old != final:
            shutil.rmtree(old)


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint, or None."""
    return max(folder.glob(f"{_PREFIX}*"), default=None)


def progress_of(checkpoint: Path) -> Progress:
    return Progress(**json.loads((checkpoint / "progress.json").read_text()))


def restore(accelerator: Accelerator, checkpoint: Path) -> None:
    """Loads weights, optimizer, schedule and random state into the prepared objects.

    Call it last before the loop: the random state must be that of the step, not of what came before.
    """
    accelerator.load_state(str(checkpoint))


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        _flush_entry(path)
    _flush_entry(folder)


def _flush_entry(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
