"""Everything that can go wrong between a caller and a teacher, and how each travels.

    TeacherError
    ├── InvalidRequestError       the caller's mistake: names the field, the value and the limit
    │   ├── TooLargeError         the request's bytes pass the limit
    │   └── NotFoundError         no model, or no version, of that name is served
    ├── UnauthenticatedError      no API key, or not a valid one
    ├── PermissionDeniedError     the key's scopes do not reach that far
    ├── BudgetSpentError          the key's budget does not hold what was asked: says when it is new
    ├── FingerprintMismatchError  the teacher is not, or is no longer, the one that was pinned
    ├── OverloadedError           the queue is full, or the key too fast: come back after `retry_after_ms`
    ├── NotReadyError             starting, draining, or out of reach
    ├── DeadlineExceededError     the caller's time ran out
    ├── CancelledError            the caller went away
    └── InternalError             the teacher's own fault; says nothing about its insides

`TABLE` is the one place where an error meets its gRPC code, its HTTP status, and whether trying
again can help.
"""

from dataclasses import dataclass
from typing import ClassVar

from teacher_api.v1 import teacher_pb2 as pb

MAX_VALUE_CHARACTERS = 80  # of an offending value that is shown


class TeacherError(Exception):
    """Base of all. `code` is the error's name on the wire."""

    code: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        value: object = "",
        limit: object = "",
        retry_after_ms: int = 0,
    ) -> None:
        super().__init__(message)
        self.message, self.field, self.limit = message, field, str(limit)
        self.value = _shortened(str(value))
        self.retry_after_ms = retry_after_ms

    def __reduce__(self) -> tuple[object, ...]:
        return error_from_proto, (error_to_proto(self),)

    def __str__(self) -> str:
        """The message with the field, value and limit that it names, where there are any."""
        named = (("field", self.field), ("value", self.value), ("limit", self.limit))
        shown = ", ".join(f"{name} {value}" for name, value in named if value)
        return f"{self.message} ({shown})" if shown else self.message


class InvalidRequestError(TeacherError):
    code = "invalid_request"


class TooLargeError(InvalidRequestError):
    code = "too_large"


class NotFoundError(InvalidRequestError):
    code = "not_found"


class UnauthenticatedError(TeacherError):
    code = "unauthenticated"


class PermissionDeniedError(TeacherError):
    code = "permission_denied"


class BudgetSpentError(TeacherError):
    code = "budget_spent"


class FingerprintMismatchError(TeacherError):
    code = "fingerprint_mismatch"


class OverloadedError(TeacherError):
    code = "overloaded"


class NotReadyError(TeacherError):
    code = "not_ready"


class DeadlineExceededError(TeacherError):
    code = "deadline_exceeded"


class CancelledError(TeacherError):
    code = "cancelled"


class InternalError(TeacherError):
    code = "internal"


@dataclass(frozen=True)
class Wire:
    """How an error travels.

    Attributes:
        grpc_code: name of the gRPC status code.
        http_status: HTTP status code.
        retry: whether the same request may succeed later.
    """

    grpc_code: str
    http_status: int
    retry: bool


TABLE: dict[type[TeacherError], Wire] = {
    InvalidRequestError: Wire("INVALID_ARGUMENT", 422, retry=False),
    TooLargeError: Wire("OUT_OF_RANGE", 413, retry=False),
    NotFoundError: Wire("NOT_FOUND", 404, retry=False),
    UnauthenticatedError: Wire("UNAUTHENTICATED", 401, retry=False),
    PermissionDeniedError: Wire("PERMISSION_DENIED", 403, retry=False),
    FingerprintMismatchError: Wire("FAILED_PRECONDITION", 412, retry=False),
    OverloadedError: Wire("RESOURCE_EXHAUSTED", 429, retry=True),
    BudgetSpentError: Wire("RESOURCE_EXHAUSTED", 402, retry=False),  # a month is too long a pause
    NotReadyError: Wire("UNAVAILABLE", 503, retry=True),
    DeadlineExceededError: Wire("DEADLINE_EXCEEDED", 504, retry=True),
    CancelledError: Wire("CANCELLED", 499, retry=False),
    InternalError: Wire("INTERNAL", 500, retry=False),
}

_BY_CODE = {error.code: error for error in TABLE}
_BY_GRPC = {wire.grpc_code: error for error, wire in reversed(TABLE.items())}  # the first of two
_BY_STATUS = {wire.http_status: error for error, wire in TABLE.items()}


def error_to_proto(error: TeacherError) -> pb.Error:
    """What a caller is told: the error's name, message and remedy."""
    return pb.Error(
        code=error.code,
        message=error.message,
        field=error.field,
        value=error.value,
        limit=error.limit,
        retry_after_ms=error.retry_after_ms,
    )


def error_from_proto(proto: pb.Error) -> TeacherError:
    """The same error again; an unknown code (a newer server) becomes InternalError."""
    kind = _BY_CODE.get(proto.code, InternalError)
    return kind(
        proto.message,
        field=proto.field,
        value=proto.value,
        limit=proto.limit,
        retry_after_ms=proto.retry_after_ms,
    )


def error_from_grpc(code: str, message: str) -> TeacherError:
    """For a failed call without `teacher-error-bin`: a proxy's, or the transport's own."""
    return _BY_GRPC.get(code, InternalError)(f"{code}: {message}")


def error_from_http(status: int, message: str) -> TeacherError:
    """For a failed request without our JSON body: a proxy's, or a web server's own."""
    fallback = NotReadyError if status in (502, 503) else InternalError
    return _BY_STATUS.get(status, fallback)(f"HTTP {status}: {message}")


def as_teacher_error(error: BaseException) -> TeacherError:
    """Any exception as one that may be shown to a caller: no text of the inside leaves."""
    return error if isinstance(error, TeacherError) else InternalError("the teacher failed; its log has more")


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_VALUE_CHARACTERS else text[: MAX_VALUE_CHARACTERS - 1] + "…"
