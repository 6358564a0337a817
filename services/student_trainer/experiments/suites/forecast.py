"""What a suite would ask and cost at most, before anything is asked: `--dry-run`."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from rich.table import Table

from student_trainer import data
from student_trainer.config import DistillSettings
from student_trainer.dynamics.selection import how_many
from student_trainer.experiments.results import Results
from student_trainer.experiments.suites.plan import Plan
from student_trainer.experiments.sweep import Cell
from student_trainer.experiments.table import usd
from student_trainer.general import asked_at
from student_trainer.schedule import Schedule
from student_trainer.teacher_side import tariffs_of
from teacher_api.messages import Instance
from teacher_api.prices import UNPRICED, Tariff

Units = Counter[Tariff]
IntArray = npt.NDArray[np.int64]
Which = Literal["every", "once", "validation"]  # training texts, different ones of them, validation texts
TITLES = ("cell", "steps", "asked at most", "with a cache", "$ at most", "$ with a cache")


class Texts:
    """What a data set has to ask about.

    Args:
        train: its training texts.
        validation: its validation texts, some of which a check of the teacher asks about.
    """

    def __init__(self, train: Iterable[Instance], validation: Iterable[Instance]) -> None:
        every = list(train)
        self._texts = {"every": every, "once": list(dict.fromkeys(every)), "validation": list(validation)}
        self._units: dict[tuple[Tariff, Which], IntArray] = {}

    def count(self, which: "Which") -> int:
        return len(self._texts[which])

    def most(self, tariff: Tariff, count: int, which: "Which") -> int:
        """Units of the `count` longest of these texts."""
        if (tariff, which) not in self._units:
            units = [tariff.units(text.characters) for text in self._texts[which]]
            self._units[tariff, which] = np.sort(units)[::-1]
        return int(self._units[tariff, which][:count].sum())


@dataclass
class Forecast:
    """Of one cell, at most; units without a cache, and with one of the run's own."""

    steps: int
    questions: int
    distinct: int
    units: Units = field(default_factory=Counter)
    distinct_units: Units = field(default_factory=Counter)


def forecast(planned: Plan, finished: Results) -> Table:
    """A line for each cell, and what is not finished together: its runs share their answers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for position, title in enumerate(TITLES):
        table.add_column(title, justify="right" if position else "left", no_wrap=not position)
    texts = cache(_texts)
    first: dict[str, Cell] = {}  # of several rows that come to the same run, as some do without labels
    for cell in planned.cells:
        first.setdefault(_run_of(cell), cell)
    open_cells = [cell for cell in first.values() if cell.name not in finished]
    found = {cell.name: expected(cell.settings, texts(_data_of(cell.settings))) for cell in open_cells}
    for cell in planned.cells:
        if cell.name in found:
            table.add_row(cell.name, *_shown(found[cell.name]))
        else:
            table.add_row(cell.name, "finished" if cell.name in finished else "above", style="dim")
    whole = [everything(cell.settings, texts(_data_of(cell.settings))) for cell in open_cells]
    together = shared(list(found.values()), whole)
    table.add_row(f"together, {len(open_cells)} cells", *_shown(together), style="bold")
    return table


def expected(settings: DistillSettings, texts: Texts) -> Forecast:
    """What one run may ask at most, counting its check of the teachers."""
    teachers = len(settings.teacher)
    schedule = Schedule(
        texts.count("every"), settings.batch_size, settings.epochs, settings.seed, settings.general_epochs
    )
    if not teachers:
        return Forecast(schedule.total, 0, 0)
    passes = list(_asked(settings, schedule))
    each = {"single": 1, "hard": 1, "ensemble": teachers}.get(settings.adoption, 2)
    checked = min(settings.check_rows, texts.count("validation"))
    asked = sum(passes)
    distinct = min(asked * each, texts.count("once") * teachers)
    found = Forecast(schedule.total, asked * each + checked * teachers, distinct + checked * teachers)
    left = asked * each
    for place, tariff in enumerate(_dearest(settings)):
        check = texts.most(tariff, checked, "validation")
        predicted = sum(texts.most(tariff, count, "every") for count in passes) if place < each else 0
        own = min(asked, texts.count("once"), left)
        found.units[tariff] += check + predicted
        found.distinct_units[tariff] += check + texts.most(tariff, own, "once")
        left -= own
    return found


def everything(settings: DistillSettings, texts: Texts) -> dict[str, Forecast]:
    """All that there is to ask each teacher of a run, once: by its address, the data, and what is wanted.

    An answer with less than is wanted is asked for again: so each kind of answers counts as a pass.
    """
    found = {}
    kinds: list[Which] = ["once", "validation"]
    count = sum(map(texts.count, kinds))
    for url, tariff in zip(settings.teacher, tariffs_of(settings), strict=True):
        units = Counter({tariff: sum(texts.most(tariff, texts.count(kind), kind) for kind in kinds)})
        name = f"{url} {_data_of(settings)} {settings.model_dump_json(include=_wants(settings))}"
        found[name] = Forecast(0, count, count, units, units)
    return found


def _wants(settings: DistillSettings) -> set[str]:
    """The settings that say what its answers hold beside predictions."""
    states = {"layer_map", "pooling", "hidden_dtype"} if settings.supervision != "none" else set()
    insides = {"layer_map", "hidden_dtype", "general_attentions"} if settings.general_epochs else set()
    return states | insides


def shared(runs: list[Forecast], whole: list[dict[str, Forecast]]) -> Forecast:
    """Together: without a cache the sum; with one, never more than there is to ask."""
    each_once = list({name: one for run in whole for name, one in run.items()}.values())
    limit = sum((one.units for one in each_once), Units())
    units = sum((run.units for run in runs), Units())
    distinct = sum((run.distinct_units for run in runs), Units())
    return Forecast(
        steps=sum(run.steps for run in runs),
        questions=sum(run.questions for run in runs),
        distinct=min(sum(run.distinct for run in runs), sum(one.distinct for one in each_once)),
        units=units,
        distinct_units=distinct & limit,
    )


def _asked(settings: DistillSettings, schedule: Schedule) -> list[int]:
    """Instances that are asked about in each pass over the data."""
    counts: Counter[tuple[str, int]] = Counter()  # by the stage and its pass
    for step in range(schedule.general):
        counts["general", step // schedule.steps_an_epoch] += asked_at(step, settings, schedule)
    if settings.pool:
        return [how_many(schedule.rows, settings.ratio, settings.rounding), *counts.values()]
    for step in range(schedule.general, schedule.total):
        epoch = (step - schedule.general) // schedule.steps_an_epoch
        counts["predictions", epoch] += _of_batch(len(schedule.rows_of(step)), step, settings)
    return list(counts.values())


def _of_batch(size: int, step: int, settings: DistillSettings) -> int:
    if settings.strategy == "all":
        return size
    return how_many(size, settings.batch_ratio, settings.rounding, step)


def _dearest(settings: DistillSettings) -> list[Tariff]:
    """The teachers' tariffs, the dearest first: where one of them is chosen, it may be that one."""
    tariffs = [tariff for tariff in tariffs_of(settings) if tariff != UNPRICED]
    return sorted(tariffs, key=lambda tariff: tariff.worst(1), reverse=True)


def _run_of(cell: Cell) -> str:
    """What is run, wherever it is kept and whoever looks at the teacher first."""
    return cell.settings.model_dump_json(exclude={"output", "check_rows"})


def _data_of(settings: DistillSettings) -> str:
    """Which rows a run sees, as one text: runs of one data set differ in their other settings."""
    return settings.model_dump_json(include=set(data.DataSettings.model_fields))


def _texts(settings: str) -> Texts:
    task = data.load(data.DataSettings.model_validate_json(settings))
    return Texts(task.train.instances, task.validation.instances)


def _shown(found: Forecast) -> list[str]:
    counts = [f"{count:,}" for count in (found.steps, found.questions, found.distinct)]
    return counts + [_price(units) for units in (found.units, found.distinct_units)]


def _price(units: Units) -> str:
    """All within one calendar month."""
    return usd(float(sum(tariff.usd(count) for tariff, count in units.items()))) if units else ""
