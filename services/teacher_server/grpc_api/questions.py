"""The contract's request as a question to the pipeline."""

import time

from teacher_api.messages import Description, Want, instance_from_proto, want_from_proto
from teacher_api.v1 import teacher_pb2 as pb
from teacher_server.admission import Question, check_count
from teacher_server.auth import CALLER, OPERATION


def question_of(request: pb.PredictRequest, seconds: float | None, teacher: Description) -> Question:
    """What is asked; `seconds` is how long the caller waits, None for ever.

    Raises:
        InvalidRequestError: it cannot be read as a question; whether this teacher can answer it is
            checked on admission.
    """
    check_count(len(request.instances), teacher)  # empty ones take two bytes each on the wire
    named = (instance_from_proto(one, f"instances[{number}]") for number, one in enumerate(request.instances))
    return Question(
        instances=tuple(named),
        want=want_from_proto(request.want) if request.HasField("want") else Want(),
        fingerprint=request.fingerprint,
        vocabulary_hash=request.vocabulary_hash,
        deadline=float("inf") if seconds is None else time.monotonic() + seconds,
        caller=CALLER.get(),
        operation=OPERATION.get(),
    )
