"""What a run cost: its questions by sieve, its bill in four ways, its FLOPs by formula."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from student_trainer.config import DistillSettings
from student_trainer.costs import flops
from student_trainer.costs.database import open_database
from student_trainer.costs.summary import LAST, Sieves, sieves
from student_trainer.data import Rows
from student_trainer.result import Money, Part, Questions, Stage
from student_trainer.schedule import Schedule
from teacher_api.messages import Description, Instance
from teacher_api.prices import UNPRICED, Tariff

GIGA = 1e9
Bill = Sequence[float]  # units: full, full with a cache, selected, selected with a cache
SAMPLE = 2000  # rows whose tokens are counted


def questions(
    answers: Path, run: str, seen: int, first: int = 0, end: int = LAST
) -> tuple[Questions, Sieves]:
    """The run's sieves, between two steps, out of the ledger; all zero where nothing was ever asked."""
    if not answers.exists():
        return Questions(seen=seen), Sieves()
    with closing(open_database(answers)) as database:
        found = sieves(database, run, first, end)
    counts = found.counts
    asked = sum(counts.values())
    return Questions(seen=seen, asked=asked, distinct=found.distinct, checked=found.checked, **counts), found


def stages(
    settings: DistillSettings,
    run: str,
    schedule: Schedule,
    steps: int,
    price: Callable[[Sieves], Money],
) -> dict[str, Stage]:
    """What each stage of a run with a general one asked and paid; empty for any other.

    The second one's dollars are what it adds to the first's: both are in one calendar month.

    Args:
        steps: that are done.
        price: the bill of what was asked.
    """
    if not settings.general_epochs:
        return {}
    between = schedule.general
    done = {"general": range(min(steps, between)), "predictions": range(between, steps)}
    bounds = {"general": (0, between), "predictions": (between, LAST)}
    made, paid = {}, Money(selected=0.0, selected_cached=0.0)
    for name, (first, end) in bounds.items():
        asked, found = questions(settings.answers, run, schedule.seen(done[name]), first, end)
        so_far = price(questions(settings.answers, run, 0, end=end)[1])
        units = sum(answered.units for answered in found.answered.values())
        asked = replace(asked, checked=0)  # before both
        made[name] = Stage(len(done[name]), asked, units, *_added(paid, so_far))
        paid = so_far
    return made


def _added(before: Money, after: Money) -> tuple[float | None, float | None]:
    pairs = [(before.selected, after.selected), (before.selected_cached, after.selected_cached)]
    plain, cached = (None if new is None or old is None else new - old for old, new in pairs)
    return plain, cached


def money(
    tariffs: Sequence[Tariff], teachers: Sequence[Description], train: Rows, epochs: float, found: Sieves
) -> Money:
    """The four ways to pay, each within one calendar month; of several teachers, the sum of their bills.

    A full pass asks every teacher about every instance. Teachers at one tariff share its tiers.
    """
    if UNPRICED in tariffs or not tariffs:
        return Money()
    bills: dict[Tariff, Bill] = {}
    for tariff, teacher in zip(tariffs, teachers, strict=True):
        every, once = _units(tariff, train.instances)
        answered = found.by(teacher.fingerprint)
        bill = (every * epochs, once, answered.units, answered.distinct_units)
        bills[tariff] = [sum(units) for units in zip(bills.get(tariff, [0] * 4), bill, strict=True)]
    columns = zip(
        *([tariff.usd(round(units)) for units in bill] for tariff, bill in bills.items()), strict=True
    )
    return Money(*(float(sum(column)) for column in columns))


def parts(tariffs: Sequence[Tariff], teachers: Sequence[Description], found: Sieves) -> list[Part]:
    """Each teacher's own account."""
    answered = [found.by(teacher.fingerprint) for teacher in teachers]

    def share(tariff: Tariff, units: int, all_units: Sequence[int]) -> float | None:
        together = sum(n for n, other in zip(all_units, tariffs, strict=True) if other == tariff)
        if UNPRICED in tariffs:
            return None
        return float(tariff.usd(together)) * units / max(1, together)

    plain, cached = [one.units for one in answered], [one.distinct_units for one in answered]
    return [
        Part(
            name=teacher.name,
            fingerprint=teacher.fingerprint,
            tariff=tariff.name,
            questions=own.questions,
            distinct=own.distinct,
            charged=own.charged,
            units=own.units,
            usd=share(tariff, own.units, plain),
            usd_cached=share(tariff, own.distinct_units, cached),
        )
        for tariff, teacher, own in zip(tariffs, teachers, answered, strict=True)
    ]


def compute(
    settings: DistillSettings,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    teachers: Sequence[Description],
    train: Rows,
    found: Sieves,
) -> tuple[str, dict[str, float]]:
    """The cost scheme that the run followed, and GFLOPs per instance seen under each formula.

    With the student's real sizes and the data's real lengths, the student's tokens standing for the
    teacher's where the tokenizers differ. Backward counts twice the forward, as it really does. F_t is
    the forward of all teachers that were asked about an instance, on average.
    """
    ours = flops.Shape.of_config(model.config)
    lengths = _lengths(tokenizer, train, settings.max_length)
    n = len(lengths)
    shares = [found.by(teacher.fingerprint).questions / max(1, found.instances) for teacher in teachers]
    asked = sum(share * _teacher_forward(one, lengths) for share, one in zip(shares, teachers, strict=True))
    cost = flops.PerInstance(
        flops.forward(ours, lengths) / n / GIGA, flops.backward(ours, lengths) / n / GIGA, asked / n / GIGA
    )
    r = 1.0 if settings.strategy == "all" else settings.batch_ratio
    columns = {
        "full": cost.full(),
        "eq10": cost.eq10(r),
        "backward_on_all": cost.backward_on_all(r),
        "two_pass_on_all": cost.two_pass_on_all(r),
        "two_pass": cost.two_pass(r),
        "random": cost.random(r),
    }
    if settings.general_epochs:
        columns["general"] = cost.random(settings.general_ratio)
    if settings.pool:
        columns["in_rounds"] = cost.in_rounds(r, _scored(settings, len(train)))
    return scheme(settings, labelled=train.labels is not None), columns


def scheme(settings: DistillSettings, *, labelled: bool) -> str:
    """Which formula counts what this run computes."""
    if settings.strategy == "all":
        return "full"
    if settings.pool:
        return "in_rounds"
    scored = settings.student_decides
    if settings.replay or (labelled and settings.label_loss == "all"):  # batches are whole
        return "two_pass_on_all" if scored else "backward_on_all"
    return "two_pass" if scored else "random"


def _scored(settings: DistillSettings, rows: int) -> float:
    """Passes of rounds over their pools, for each instance seen."""
    looks = settings.student_decides or settings.warm_start == "coverage"
    return looks * settings.rounds * min(settings.pool or 0, rows) / (rows * settings.epochs)


def _teacher_forward(teacher: Description, lengths: Sequence[int]) -> int:
    shape = flops.Shape(teacher.layers, teacher.hidden_size, teacher.intermediate_size, len(teacher.labels))
    return flops.forward(shape, [min(length, teacher.max_length) for length in lengths])


def _lengths(tokenizer: PreTrainedTokenizerBase, rows: Rows, max_length: int) -> list[int]:
    """Tokens of evenly spaced rows, special tokens included."""
    step = max(1, len(rows) // SAMPLE)
    sample = rows.instances[::step]
    pairs = [instance.text_pair for instance in sample]
    ids = tokenizer(
        [instance.text for instance in sample],
        None if None in pairs else pairs,
        truncation="longest_first",
        max_length=max_length,
        padding=False,
    )["input_ids"]
    return [len(row) for row in ids]


def _units(tariff: Tariff, instances: Sequence[Instance]) -> tuple[int, int]:
    """Units of all instances, and of the distinct ones."""
    every, once = 0, 0
    seen: set[int] = set()
    for instance in instances:
        units, name = tariff.units(instance.characters), hash((instance.text, instance.text_pair))
        every += units
        once += 0 if name in seen else units
        seen.add(name)
    return every, once
