"""What a suite would ask and cost at most, before anything is asked: `--dry-run`."""

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import chain
from operator import add
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
from student_trainer.tariffs import tariffs_of
from teacher_api.messages import Instance
from teacher_api.prices import UNPRICED, Tariff

Units = Counter[Tariff]
IntArray = npt.NDArray[np.int64]
Which = Literal["every", "once", "validation"]  # training texts, different ones of them, validation texts
PREDICTIONS = "predictions"
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

    def count(self, which: Which) -> int:
        return len(self._texts[which])

    def most(self, tariff: Tariff, count: int, which: Which) -> int:
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
    units: Units
    distinct_units: Units


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
    wanted = [demands(cell.settings, texts(_data_of(cell.settings))) for cell in open_cells]
    together = shared(list(found.values()), list(chain(*wanted)))
    table.add_row(f"together, {len(open_cells)} cells", *_shown(together), style="bold")
    return table


def expected(settings: DistillSettings, texts: Texts) -> Forecast:
    """What one run may ask at most, counting its check of the teachers."""
    teachers, passes = len(settings.teacher), list(chain(*_asked(settings, texts).values()))
    each = min(teachers, {"single": 1, "hard": 1, "ensemble": teachers}.get(settings.adoption, 2))
    checked, check = _merged(_checks(settings, texts))
    dearest = _dearest(settings)[:each]
    units = sum((Units({one: texts.most(one, n, "every")}) for one in dearest for n in passes), check)
    if settings.adopts_by_doubt:
        distinct, once = _adopted(settings, texts, sum(passes), each)
    else:
        distinct, once = _merged(_answers(settings, texts))
    steps = _schedule(settings, texts).total
    return Forecast(steps, sum(passes) * each + checked, distinct + checked, units, once + check)


def _adopted(settings: DistillSettings, texts: Texts, asked: int, each: int) -> tuple[int, Units]:
    """With a cache, where doubt decides which `each` of the teachers are asked: it may be the dearest."""
    once, units, left = texts.count("once"), Units(), asked * each
    for tariff in _dearest(settings):
        own = min(asked, once, left)
        units[tariff] += texts.most(tariff, own, "once")
        left -= own
    return min(asked * each, once * len(settings.teacher)), units


@dataclass(frozen=True)
class Demand:
    """What a run may ask one teacher at most, with a cache; each a number of texts, and their units.

    Attributes:
        whom: teacher and data.
        kind: of answers; of these no more than `limit` is asked, however many runs.
        tariff: the teacher's.
        whole: whether all texts will then be answered with more than predictions.
    """

    whom: str
    kind: str
    tariff: Tariff
    asked: tuple[int, int]
    limit: tuple[int, int]
    whole: bool = False


def demands(settings: DistillSettings, texts: Texts) -> list[Demand]:
    return [*_checks(settings, texts), *_answers(settings, texts)]


def _checks(settings: DistillSettings, texts: Texts) -> list[Demand]:
    return _demanded(settings, texts, "check", settings.check_rows, "validation")


def _answers(settings: DistillSettings, texts: Texts) -> list[Demand]:
    """By kind, for an answer that has less than is wanted is asked for again."""
    stages = {stage: sum(passes) for stage, passes in _asked(settings, texts).items()}
    whole = _whole(settings)
    return [
        one
        for stage, count in stages.items()
        for one in _demanded(settings, texts, stage, count, "once", stage in whole)
    ]


def _whole(settings: DistillSettings) -> set[str]:
    """The stages that ask each teacher about all texts, and for more than predictions."""
    if settings.budget_queries is not None or settings.budget_usd is not None:
        return set()  # it may be spent before
    general = settings.general_epochs >= 1 and settings.general_ratio == 1
    each_teacher = settings.adoption in ("single", "ensemble")
    every = settings.strategy == "all" and settings.warm_start == "none" and settings.epochs >= 1
    stages = {"general": general, PREDICTIONS: every and each_teacher and settings.supervision != "none"}
    return {stage for stage, whole in stages.items() if whole}


def _demanded(
    settings: DistillSettings, texts: Texts, stage: str, count: int, which: Which, whole: bool = False
) -> list[Demand]:
    """Of each teacher, about the longest `count` of these texts."""
    rows = _data_of(settings)

    def longest(tariff: Tariff, count: int) -> tuple[int, int]:
        return min(count, texts.count(which)), texts.most(tariff, count, which)

    def demand(url: str, own: DistillSettings, tariff: Tariff) -> Demand:
        asked, limit = longest(tariff, count), longest(tariff, sys.maxsize)
        return Demand(f"{url} {rows}", _kind(own, stage), tariff, asked, limit, whole)

    return list(map(demand, settings.teacher, settings.by_teacher, tariffs_of(settings)))


def _kind(settings: DistillSettings, stage: str) -> str:
    """What a stage's answers of one teacher hold beside predictions, as far as settings say it."""
    if stage == "check" or (stage == PREDICTIONS and settings.supervision == "none"):
        return stage
    layers = {"layer_map", "student", "student_layers", "hidden_dtype"}
    return settings.model_dump_json(
        include=layers | {"pooling" if stage == PREDICTIONS else "general_attentions"}
    )


def _merged(wanted: list[Demand]) -> tuple[int, Units]:
    """Different texts, and units, of runs that share their answers, in the order in which they ask."""
    asked: dict[tuple[str, str, Tariff], tuple[int, int]] = {}
    served: set[str] = set()  # by what was asked for more
    for one in wanted:
        if one.kind == PREDICTIONS and one.whom in served:
            continue
        key = one.whom, one.kind, one.tariff
        asked[key] = tuple(map(min, one.limit, map(add, asked.get(key, (0, 0)), one.asked)))
        if one.whole:
            served.add(one.whom)
    units = Units()
    for (_, _, tariff), (_, count) in asked.items():
        if tariff != UNPRICED:
            units[tariff] += count
    return sum(texts for texts, _ in asked.values()), units


def shared(runs: list[Forecast], wanted: list[Demand]) -> Forecast:
    """Together: without a cache the sum; with one, neither more than that of each run's own nor than there is
    to ask of each teacher."""
    distinct, units = _merged(wanted)
    own = sum((run.distinct_units for run in runs), Units())
    return Forecast(
        steps=sum(run.steps for run in runs),
        questions=sum(run.questions for run in runs),
        distinct=min(sum(run.distinct for run in runs), distinct),
        units=sum((run.units for run in runs), Units()),
        distinct_units=min(own, units, key=_usd),
    )


def _schedule(settings: DistillSettings, texts: Texts) -> Schedule:
    rows, epochs = texts.count("every"), (settings.epochs, settings.general_epochs)
    return Schedule(rows, settings.batch_size, epochs[0], settings.seed, epochs[1])


def _asked(settings: DistillSettings, texts: Texts) -> dict[str, list[int]]:
    """By stage: instances that are asked about in each pass over the data."""
    schedule = _schedule(settings, texts)
    counts: dict[str, Counter[int]] = {"general": Counter(), PREDICTIONS: Counter()}
    for step in range(schedule.general):
        counts["general"][step // schedule.steps_an_epoch] += asked_at(step, settings, schedule)
    if settings.pool:
        counts[PREDICTIONS][0] = how_many(schedule.rows, settings.ratio, settings.rounding)
    for step in range(schedule.general, 0 if settings.pool else schedule.total):
        epoch = (step - schedule.general) // schedule.steps_an_epoch
        counts[PREDICTIONS][epoch] += _of_batch(len(schedule.rows_of(step)), step, settings)
    return {stage: list(passes.values()) for stage, passes in counts.items()}


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
    return usd(_usd(units)) if units else ""


def _usd(units: Units) -> float:
    return float(sum(tariff.usd(count) for tariff, count in units.items()))
