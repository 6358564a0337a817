"""Checkpoints that are whole or not there: written beside, flushed to disk, then renamed.

Accelerate saves what a step changes: weights (safetensors), optimizer, schedule, random state. What a
run has asked is not in here but in the answers file, which is never behind.
"""

import os
import shutil
from pathlib import Path

from accelerate import Accelerator

_PREFIX = "checkpoint-"


def save(accelerator: Accelerator, folder: Path, step: int) -> None:
    """Writes `folder/checkpoint-STEP` in one atomic move; then older ones go."""
    unfinished = _unfinished(folder, step)
    accelerator.save_state(str(unfinished))
    final = _finish(unfinished, step)
    for old in set(folder.glob(f"{_PREFIX}*")) - {final}:
        shutil.rmtree(old)


def copy(checkpoint: Path, folder: Path) -> None:
    """The same in another folder, in one atomic move."""
    step = step_of(checkpoint)
    unfinished = _unfinished(folder, step)
    shutil.copytree(checkpoint, unfinished)
    _finish(unfinished, step)


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint, or None."""
    return max(folder.glob(f"{_PREFIX}*"), default=None)


def step_of(checkpoint: Path | None) -> int:
    """The next step to do: 0 without a checkpoint."""
    return 0 if checkpoint is None else int(checkpoint.name.removeprefix(_PREFIX))


def remove(folder: Path) -> None:
    """Of a run that is finished: its model is saved, there is nothing to go on with."""
    for checkpoint in folder.glob(f"{_PREFIX}*"):
        shutil.rmtree(checkpoint)


def restore(accelerator: Accelerator, checkpoint: Path) -> None:
    """Loads weights, optimizer, schedule and random state into the prepared objects.

    Call it last before the loop: the random state must be that of the step, not of what came before.
    """
    accelerator.load_state(str(checkpoint))


def _unfinished(folder: Path, step: int) -> Path:
    """Where a checkpoint is written; what was left of it before is gone."""
    unfinished = folder / f".writing-{step}"
    shutil.rmtree(unfinished, ignore_errors=True)
    return unfinished


def _finish(unfinished: Path, step: int) -> Path:
    _flush(unfinished)
    final = unfinished.with_name(f"{_PREFIX}{step:08d}")
    unfinished.rename(final)
    _flush_entry(final.parent)
    return final


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
