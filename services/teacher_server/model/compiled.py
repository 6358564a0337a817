"""A network's whole forward by torch.compile: one graph for all sizes, or a CUDA graph for each of a few."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from transformers import PreTrainedModel

from teacher_server.model.loading import ModelError
from teacher_server.model.runtimes import Runtime

Compile = Literal["off", "default", "reduce-overhead"]


def prepare(forward: Runtime, network: PreTrainedModel, mode: Compile) -> None:
    """Compiles nothing yet: the first calls do, within `compiling`.

    Args:
        mode: torch.compile's own; "reduce-overhead" records a CUDA graph when a size is first met.

    Raises:
        ModelError: the device, or the runtime, is none for that.
    """
    if mode == "off":
        return
    if mode == "reduce-overhead" and network.device.type != "cuda":
        raise ModelError(
            f"compile {mode!r} records CUDA graphs, which need CUDA, not {network.device}: "
            "take --compile default or off"
        )
    if forward.name == "packed":
        raise ModelError(
            f"compile {mode!r} is not for batches packed on a CPU: their linears are already what it would "
            "call, and their attention is a loop over lengths; take --compile off"
        )
    network.compile(fullgraph=True, dynamic=True, mode=mode)
    forward.compiled = True


@contextmanager
def compiling(mode: Compile) -> Iterator[None]:
    """The calls within compile; behind it nothing in this process does: nobody who asks waits for that.

    A size that would need other code runs without, slower and no less right.

    Raises:
        ModelError: a compiler is missing, or torch.compile cannot make one graph of this model.
    """
    if mode == "off":
        yield
        return
    try:
        yield
    except Exception as error:
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise ModelError(
            f"compile {mode!r} failed: {type(error).__name__}: {reason}; take --compile off, "
            "or install g++ if it is a compiler that is missing"
        ) from error
    gc.collect()  # a compiler leaves much behind
    torch.compiler.set_stance("eager_on_recompile")
