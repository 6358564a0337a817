"""student-trainer finetune | distill | bench | augment | record | price | ledger | reconcile

finetune  a teacher, or a student without one, from a pretrained checkpoint and labels
distill   a student from a teacher that is asked only what it must
bench     a grid of such runs: query budget against accuracy; --suite: a table or figure of the paper
augment   a task's rows, twenty times as many, with words replaced
record    a teacher's answers in a file, which the teacher recorded:FILE replays at the same charge
price     what asking would cost, before anything is asked
ledger    what was asked and paid, run by run
reconcile the ledger against the teacher's log of charges

`student-trainer COMMAND --help` lists the settings; each can also stand in a file given by --config.
"""

import json
import logging
import os
import sys

from rich.console import Console
from rich.logging import RichHandler

from student_trainer.errors import UserError
from teacher_api.errors import TeacherError, UnauthenticatedError
from teacher_api.prices import PriceBookError

# A command's libraries are imported when it runs: this page, and a command that is none, need not wait.
# ruff: noqa: PLC0415

console = Console(stderr=True)


def main(arguments: list[str] | None = None) -> None:
    """Exit codes: 0 done, 1 a teacher failed or charges differ, 2 what was given is no use, 130 stopped."""
    command, *flags = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if command not in COMMANDS:
        print(__doc__)
        sys.exit(0 if command in ("-h", "--help") else 2)
    # Before torch loads: threads that spin while they wait would take the cores from a teacher beside them.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    handler = RichHandler(console=console, show_path=False)
    logging.basicConfig(level="WARNING", format="%(message)s", handlers=[handler])
    again = "the same command" if command == "record" else "--resume"
    try:
        COMMANDS[command](flags)
    except (UserError, PriceBookError) as error:
        _say("refused", str(error), code=2)
    except TeacherError as error:
        key = isinstance(error, UnauthenticatedError)
        remedy = "; the trainer sends what STUDENT_TEACHER_API_KEY holds" if key else ""
        _say("the teacher failed", f"{error}{remedy}; what was answered is kept: {again} goes on", code=1)
    except KeyboardInterrupt:
        _say("interrupted", f"what was answered is kept: {again} goes on", code=130)


def finetune(flags: list[str]) -> None:
    from student_trainer import run
    from student_trainer.config import FinetuneSettings, parse
    from student_trainer.progress import bar, conclude

    settings = parse(FinetuneSettings, flags, "finetune")
    with bar(console) as watch:
        result = run.finetune(settings, watch)
    conclude(console, settings.output, result)


def distill(flags: list[str]) -> None:
    from student_trainer import run
    from student_trainer.config import DistillSettings, parse
    from student_trainer.progress import bar, conclude

    settings = parse(DistillSettings, flags, "distill")
    with bar(console) as watch:
        result = run.run(settings, watch)
    conclude(console, settings.output, result)


def bench(flags: list[str]) -> None:
    from student_trainer.config import BenchSettings, SuiteSettings, names_suite, parse
    from student_trainer.experiments.bench import bench as run_grid
    from student_trainer.experiments.suites.command import bench_suite
    from student_trainer.run import check, run

    if names_suite(flags):
        bench_suite(parse(SuiteSettings, flags, "bench --suite"), run, check, console)
    else:
        run_grid(parse(BenchSettings, flags, "bench"), run, check, console)


def augment(flags: list[str]) -> None:
    from student_trainer.augment import augment as make
    from student_trainer.augment.progress import bar, conclude
    from student_trainer.config import AugmentSettings, parse

    settings = parse(AugmentSettings, flags, "augment")
    with bar(console) as watch:
        outcome = make(settings, watch)
    conclude(console, settings.output, outcome)


def record(flags: list[str]) -> None:
    from student_trainer.config import RecordSettings, parse
    from student_trainer.record import bar, conclude
    from student_trainer.record import record as run_record

    settings = parse(RecordSettings, flags, "record")
    with bar(console) as watch:
        recorded = run_record(settings, watch)
    conclude(console, settings.output, recorded)


def price(flags: list[str]) -> None:
    from student_trainer.config import PriceSettings, parse
    from student_trainer.quote import quote, shown

    settings = parse(PriceSettings, flags, "price")
    found = quote(settings)
    print(json.dumps(found) if settings.as_json else shown(found))


def ledger(flags: list[str]) -> None:
    from student_trainer.config import LedgerSettings, parse
    from student_trainer.ledger_view import view

    Console().print(view(parse(LedgerSettings, flags, "ledger")))


def reconcile(flags: list[str]) -> None:
    from student_trainer.config import ReconcileSettings, parse
    from student_trainer.reconcile import reconcile as compare

    differences, runs = compare(parse(ReconcileSettings, flags, "reconcile"))
    print(*differences, f"{runs} run(s) compared, {len(differences)} difference(s)", sep="\n")
    if differences or not runs:
        sys.exit(1)


def _say(what: str, why: str, code: int) -> None:
    console.print(f"[bold red]{what}[/]:", end=" ")
    console.print(why, markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)


COMMANDS = {
    "finetune": finetune,
    "distill": distill,
    "bench": bench,
    "augment": augment,
    "record": record,
    "price": price,
    "ledger": ledger,
    "reconcile": reconcile,
}

if __name__ == "__main__":
    main()
