"""Whatever goes wrong while a call is answered, in the words of the error table."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator

from teacher_api.errors import TeacherError, as_teacher_error

log = logging.getLogger(__name__)


@contextlib.contextmanager
def of_the_table() -> Iterator[None]:
    """Whatever is raised becomes a TeacherError, but for the cancellation of a caller who left.

    A CancelledError that nobody asked for would leave the caller without an answer.
    """
    try:
        yield
    except TeacherError:
        raise
    except asyncio.CancelledError as error:
        if _was_cancelled():
            raise  # nobody to answer
        raise _logged(error) from None
    except Exception as error:
        raise _logged(error) from None


def _was_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _logged(error: BaseException) -> TeacherError:
    log.error("a call failed", exc_info=error)
    return as_teacher_error(error)
