"""student-trainer finetune | distill | bench | price: `student-trainer COMMAND --help` lists the settings."""

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler

# A command's libraries are imported when it runs: `price` need not wait for torch.
# ruff: noqa: PLC0415

console = Console(stderr=True)


def main(arguments: list[str] | None = None) -> None:
    """Exit codes: 0 done, 2 a setting, file or teacher that cannot be used (said on stderr), 130 interrupted."""
    words = sys.argv[1:] if arguments is None else arguments
    command = COMMANDS.get(words[0]) if words else None
    if command is None:
        print(__doc__)
        sys.exit(0 if words and words[0] in ("-h", "--help") else 2)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.basicConfig(level="WARNING", format="%(message)s", handlers=[RichHandler(console=console)])
    try:
        command(words[1:])
    except KeyboardInterrupt:
        console.print("interrupted: what was answered is kept; the same command with --resume goes on")
        sys.exit(130)
    except _refusals() as error:
        console.print(f"[bold red]refused[/]: {error}", highlight=False, markup=True)
        sys.exit(2)


def finetune(words: list[str]) -> None:
    """A teacher, or a student without a teacher, from a pretrained checkpoint and labels."""
    from student_trainer.config import FinetuneSettings, parse
    from student_trainer.run import finetune as run_finetune

    settings = parse(FinetuneSettings, words, "finetune")
    _show(settings.output, lambda watch: run_finetune(settings, watch))


def distill(words: list[str]) -> None:
    """A student from a teacher that is asked only what it must."""
    from student_trainer.config import DistillSettings, parse
    from student_trainer.run import run

    settings = parse(DistillSettings, words, "distill")
    _show(settings.output, lambda watch: run(settings, watch))
