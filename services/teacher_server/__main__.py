"""The command line.

    teacher-server serve --model DIR_OR_HUB_NAME
    teacher-server keys create|list|rotate|revoke

When both faces answer, one line goes to stdout:
`ready grpc=HOST:PORT http=HOST:PORT fingerprint=… access=keys|open tls=on|off`.
Exit code: 0 after SIGTERM or SIGINT, 1 when the model's thread died, 2 for settings that cannot be served.
"""

import gc
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from teacher_server import keys, logs, settings

USAGE = (
    "usage: teacher-server serve --model DIR_OR_HUB_NAME; all settings: teacher-server serve --help\n"
    "       teacher-server keys create|list|rotate|revoke; teacher-server keys --help"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    command, *flags = (sys.argv[1:] if arguments is None else arguments) or [""]
    if command == "keys":
        return keys.main(flags)
    if command != "serve":
        print(USAGE, file=sys.stderr)
        return 0 if command in ("-h", "--help") else 2
    try:
        chosen = settings.load(flags)
        logs.configure(chosen.log_level)
        _leave(_run(chosen))
    except settings.SettingsError as error:
        print(f"teacher-server: {error}", file=sys.stderr)
        return 2


def _run(chosen: settings.Settings) -> int:
    # Before torch loads: OpenMP threads that spin while they wait take the cores from the event loop and
    # from neighbours; ones that sleep at once lose a tenth on a quiet host. A short spin does neither.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # Compiled products that are kept, 0.7 MB each; a batch of one size needs four.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    os.environ.setdefault("TQDM_DISABLE", "1")  # no progress bars among the log's lines
    # transformers imports them wherever they are installed, and nothing here needs them: 45 MB. It must not
    # have looked for them before.
    if "transformers" not in sys.modules:
        for name in ("accelerate", "PIL", "scipy"):
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # None: as if not installed
    # Until all is loaded: almost nothing of it is garbage, and looking for some took a quarter of the start.
    gc.disable()
    from teacher_server import serving  # noqa: PLC0415  # torch takes seconds; mistakes are told before

    return serving.run(chosen)


def _leave(code: int) -> NoReturn:
    """Ends the process as it is: all is closed, and to take a million objects apart took a second more."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
