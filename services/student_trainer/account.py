"""What a run cost: its questions by sieve, its bill in four ways, its FLOPs by formula."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from student_trainer.config import DistillSettings
from student_trainer.costs import flops
from student_trainer.costs.database import open_database
from student_trainer.costs.summary import LAST, Sieves, sieves
from student_trainer.data import Rows
from student_trainer.result import Money, Part, Questions, Stage
from student_trainer.schedule import Schedule
from student_trainer.teacher_check import TeacherCheck
from teacher_api.messages import Description, Instance
from teacher_api.prices import UNPRICED, Tariff

GIGA = 1e9
Bill = Sequence[float]  # units: full, full with a cache, selected, selected with a cache
SAMPLE = 2000  # rows whose tokens are counted


@dataclass(frozen=True)
class Account:
    """Of one run, out of the ledger and the price books.

    Attributes:
        settings: the run's.
        run: its id in the ledger.
        schedule: its steps.
        rows: that it learns from.
        tariffs: of each teacher.
        teachers: in the same order; none of a run from labels alone.
        checks: what each said of validation rows.
    """

    settings: DistillSettings
    run: str
    schedule: Schedule
    rows: Rows
    tariffs: Sequence[Tariff]
    teachers: Sequence[Description]
    checks: Sequence[TeacherCheck]

    def questions(self, steps: range, first: int = 0, end: int = LAST) -> tuple[Questions, Sieves]:
        """The sieves of the steps that are done, as far as the ledger has them from `first` to before `end`;
        all zero where nothing was ever asked."""
        seen = self.schedule.seen(steps)
        if not self.settings.answers.exists():
            return Questions(seen=seen), Sieves()
        with closing(open_database(self.settings.answers)) as database:
            found = sieves(database, self.run, first, end)
        asked = sum(found.counts.values())
        counts = dict(asked=asked, distinct=found.distinct, checked=found.checked, **found.counts)
        return Questions(seen=seen, **counts), found

    def stages(self, steps: int) -> dict[str, Stage]:
        """What each stage of a run with a general one asked and paid; empty for any other.

        The second one's dollars are what it adds to the first's: both are in one calendar month.

        Args:
            steps: that are done.
        """
        if not self.settings.general_epochs:
            return {}
        between = self.schedule.general
        bounds = {
            "general": (range(min(steps, between)), 0, between),
            "predictions": (range(between, steps), between, LAST),
        }
        made, paid = {}, Money(selected=0.0, selected_cached=0.0)
        for name, (done, first, end) in bounds.items():
            asked, found = self.questions(done, first, end)
            so_far = self.money(self.questions(done, 0, end)[1])
            units = sum(answered.units for answered in found.answered.values())
            asked = replace(asked, checked=0)  # before both
            made[name] = Stage(len(done), asked, units, *_added(paid, so_far))
            paid = so_far
        return made

    def money(self, found: Sieves) -> Money:
        """The four ways to pay, each within one calendar month; of several teachers, the sum of their bills.

        A full pass asks every teacher about every instance. Teachers at one tariff share its tiers.
        """
        if UNPRICED in self.tariffs or not self.tariffs:
            return Money()
        passes = self.schedule.seen(range(self.schedule.total)) / len(self.rows)
        bills: dict[Tariff, Bill] = {}
        for tariff, teacher in zip(self.tariffs, self.teachers, strict=True):
            every, once = _units(tariff, self.rows.instances)
            answered = found.by(teacher.fingerprint)
            bill = (every * passes, min(once, every * passes), answered.units, answered.distinct_units)
            bills[tariff] = [sum(units) for units in zip(bills.get(tariff, [0] * 4), bill, strict=True)]
        columns = zip(
            *([tariff.usd(round(units)) for units in bill] for tariff, bill in bills.items()), strict=True
        )
        return Money(*(float(sum(column)) for column in columns))

    def parts(self, found: Sieves) -> list[Part]:
        """Each teacher's own account."""
        answered = [found.by(teacher.fingerprint) for teacher in self.teachers]
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
                usd=self._share(tariff, own.units, plain),
                usd_cached=self._share(tariff, own.distinct_units, cached),
                check_rows=checked.rows,
                check_scores=checked.scores,
            )
            for tariff, teacher, own, checked in zip(
                self.tariffs, self.teachers, answered, self.checks, strict=True
            )
        ]

    def _share(self, tariff: Tariff, units: int, all_units: Sequence[int]) -> float | None:
        """Of the bill at a tariff, what these units come to; None where there is no price."""
        if UNPRICED in self.tariffs:
            return None
        together = sum(n for n, other in zip(all_units, self.tariffs, strict=True) if other == tariff)
        return float(tariff.usd(together)) * units / max(1, together)

    def compute(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, found: Sieves
    ) -> tuple[str, dict[str, float]]:
        """The cost scheme that the run followed, and GFLOPs per instance seen under each formula."""
        settings, cost = self.settings, self._per_instance(model, tokenizer, found)
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
            columns["in_rounds"] = cost.in_rounds(r, _scored(settings, len(self.rows)))
        return scheme(settings, labelled=self.rows.labels is not None), columns

    def _per_instance(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, found: Sieves
    ) -> flops.PerInstance:
        """GFLOPs with the student's real sizes and the data's real lengths, the student's tokens standing
        for the teacher's where the tokenizers differ. Backward counts twice the forward, as it really does.
        F_t is the forward of all teachers that were asked about an instance, on average.
        """
        student = flops.Shape.of_config(model.config)
        lengths = _lengths(tokenizer, self.rows, self.settings.max_length)
        asked = sum(
            found.by(teacher.fingerprint).questions * _teacher_forward(teacher, lengths)
            for teacher in self.teachers
        )
        work = (
            flops.forward(student, lengths),
            flops.backward(student, lengths),
            asked / max(1, found.instances),
        )
        return flops.PerInstance(*(amount / len(lengths) / GIGA for amount in work))


def _added(before: Money, after: Money) -> tuple[float | None, float | None]:
    pairs = [(before.selected, after.selected), (before.selected_cached, after.selected_cached)]
    plain, cached = (None if new is None or old is None else new - old for old, new in pairs)
    return plain, cached


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
