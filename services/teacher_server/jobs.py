"""What goes through the batcher: a question on its way through the model, and what a lane takes of them."""

import asyncio
import time
from dataclasses import dataclass, field

from teacher_api.errors import TeacherError
from teacher_api.messages import Instance, Outputs, Want
from teacher_server.model import Encoded
from teacher_server.tracing import Request

Outcome = Outputs | TeacherError


@dataclass(eq=False, slots=True)
class Job:
    """One question on its way through the model.

    Attributes:
        future: its outcome, never an exception; cancelled when nobody waits any more.
        deadline: time.monotonic() after which nobody waits.
        seats: of the requests that wait, in the order in which they came.
        payer: the seat that was first when the outcome came.
        caller: whose turn it takes; see fair_queue.py.
        asked_by: the requests that it answers, for spans and logs.
        arrived: time.monotonic().
    """

    key: bytes
    instance: Instance
    want: Want
    future: asyncio.Future[Outcome]
    deadline: float
    seats: list["Seat"] = field(default_factory=list)
    payer: "Seat | None" = None
    caller: str = ""
    asked_by: list[Request] = field(default_factory=list)
    arrived: float = field(default_factory=time.monotonic)
    encoded: Encoded = field(init=False)

    @property
    def ids(self) -> dict[str, str]:
        """For the log: of the request that asked first."""
        return self.asked_by[0].ids if self.asked_by else {}

    def expired(self, now: float) -> bool:
        return self.future.cancelled() or now >= self.deadline


@dataclass(frozen=True, slots=True, eq=False)
class Seat:
    """Where one instance of a request waits for its outcome."""

    job: Job

    @property
    def pays(self) -> bool:
        """Whether the job's outcome is on its account; whoever else waited has joined."""
        return self.job.payer is self

    @property
    def owes(self) -> bool:
        """Whether it has to pay: the model has answered."""
        return self.pays and isinstance(self.job.future.result(), Outputs)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a lane takes: a batch, and what has expired.

    Attributes:
        alone: the other lane is idle, and nothing is left for it.
        more_waited: something is left.
    """

    batch: list[Job]
    expired: list[Job]
    alone: bool
    more_waited: bool
