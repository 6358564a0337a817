"""One process at a time: what a run writes to is its own while it lives."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from student_trainer.errors import UserError


@contextmanager
def alone(output: Path, lock: Path | None = None) -> Iterator[None]:
    """Holds it; the system lets go of it when the process dies.

    Args:
        output: a folder, made if it is not there; or a file.
        lock: what stands for it; `.lock` in it, unless it is a file.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    lock = lock or output / ".lock"
    held = FileLock(lock, timeout=0)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held.acquire()
    except Timeout:
        raise UserError(f"output: another process works in {output}; wait for it, or name another") from None
    except OSError as error:
        raise UserError(f"output: cannot be written: {error}; name another") from None
    try:
        yield
    finally:
        held.release()
