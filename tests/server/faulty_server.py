"""A real teacher server with faults in its model and its handlers, each asked for by a text.

    python faulty_server.py serve --model DIR

"slow 0.5 …"   the forward that holds it takes so many seconds more
"until 9.5 …"  it takes 5 ms more; the file says "late" if it starts after that time.monotonic()
"fail …"       the forward raises RuntimeError      "memory …"  MemoryError
"nan …"        its logits are NaN
"die …"        the model's thread ends
"raise NAME"   the pipeline raises that exception in the handler
"stall 0.5 …"  the event loop stands still so long once the answer is there

Its model has one lane, so that a slow text holds all others, unless --threads says more.
Each text that the model sees is appended, one a line, to the file that FAULTY_RUNS names.
"""

import asyncio
import builtins
import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from teacher_api import errors
from teacher_api.messages import Answer, Instance, Outputs, Want
from teacher_server.__main__ import main
from teacher_server.admission import Question
from teacher_server.model import Encoded, Model
from teacher_server.pipeline import Pipeline

SECRET = "the-inside-of-the-server"

encode, run, predict = Model.encode, Model.run, Pipeline.predict
text_of: dict[tuple[int, ...], str] = {}


def remembering_encode(self: Model, instances: Sequence[Instance]) -> list[Encoded]:
    encoded = encode(self, instances)
    text_of.update((tuple(one.ids), instance.text) for one, instance in zip(encoded, instances, strict=True))
    return encoded


def faulty_run(
    self: Model, encoded: Sequence[Encoded], wants: Sequence[Want], *, alone: bool = True
) -> list[Outputs]:
    asked = [text_of[tuple(one.ids)] for one in encoded]
    with Path(os.environ["FAULTY_RUNS"]).open("a") as seen:
        seen.write("".join(f"{'late' if is_late(text) else text}\n" for text in asked))
    for text in asked:
        kind, _, rest = text.partition(" ")
        if kind in ("slow", "until"):
            time.sleep(float(rest.split()[0]) if kind == "slow" else 0.005)
        if kind == "die":
            sys.exit(SECRET)
        if kind in ("fail", "memory"):
            raise (RuntimeError if kind == "fail" else MemoryError)(SECRET)
    outputs = run(self, encoded, wants, alone=alone)
    return [
        poisoned(out) if text.startswith("nan") else out for text, out in zip(asked, outputs, strict=True)
    ]


def is_late(text: str) -> bool:
    """The clock is the machine's: the caller's time is comparable."""
    kind, _, rest = text.partition(" ")
    return kind == "until" and time.monotonic() > float(rest.split()[0])


def poisoned(outputs: Outputs) -> Outputs:
    return dataclasses.replace(outputs, logits=np.full_like(outputs.logits, np.nan))


async def faulty_predict(self: Pipeline, question: Question) -> list[Answer]:
    kind, _, name = question.instances[0].text.partition(" ") if question.instances else ("", "", "")
    if kind == "raise":
        raise named(name)(SECRET)
    answers = await predict(self, question)
    if kind == "stall":
        time.sleep(float(name.split()[0]))  # noqa: ASYNC251  # that is the fault
    return answers


def named(name: str) -> type[BaseException]:
    places = (errors, builtins, asyncio)
    kind = asyncio.CancelledError if name == "asyncio" else None
    return kind or next(getattr(place, name) for place in places if hasattr(place, name))


if __name__ == "__main__":
    Model.encode, Model.run, Pipeline.predict = remembering_encode, faulty_run, faulty_predict  # type: ignore[method-assign]
    os.environ.setdefault("TEACHER_THREADS", "1")
    sys.exit(main())
