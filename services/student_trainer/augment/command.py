"""`student-trainer augment`: from a task's folder to the same task with many more rows to learn from."""

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from student_trainer import data
from student_trainer.alone import alone
from student_trainer.augment.rows_file import RowsFile, State, refuse_foreign
from student_trainer.augment.seen import Seen
from student_trainer.augment.variants import dice_of, variants
from student_trainer.augment.words import Proposer
from student_trainer.config import AugmentSettings
from student_trainer.data import DataSettings, Rows, TaskData
from teacher_api.messages import Instance

CHUNK = 256  # rows of the source: what is in memory at a time, and what a kill can cost

Labels = list[str | None]
Watch = Callable[[int, int, int], None]  # rows of the source that are done, of how many; rows written

# Where things are. What was read there counts: `_recipe` has digests of it.
_FREE = {*DataSettings.model_fields, "output", "resume", "masked_lm", "word_vectors"}


@dataclass(frozen=True)
class Source:
    """The rows that variants are made of.

    Attributes:
        instances: read from disk as they are wanted.
        labels: of each.
        new: whether each is there for the first time. A text under two labels stays under both, and
            without a label only where it never has one.
    """

    instances: Sequence[Instance]
    labels: Labels
    new: list[bool]

    @classmethod
    def of(cls, rows: Rows, names: tuple[str, ...]) -> "Source":
        labels, texts = _labels(rows, names), Seen()
        by_label = Seen().add(rows.instances, labels)
        texts.add(one for one, label in zip(rows.instances, labels, strict=True) if label is not None)
        bare = texts.add(one for one, label in zip(rows.instances, labels, strict=True) if label is None)
        unlabelled, pairs = iter(bare), zip(by_label, labels, strict=True)
        return cls(rows.instances, labels, [next(unlabelled) if one is None else new for new, one in pairs])


@dataclass(frozen=True)
class Outcome:
    """What is in the output folder now.

    Attributes:
        source: rows of the source.
        distinct: of these, the different ones, which are kept.
        state: rows written, duplicates dropped.
        speed: rows that this process wrote in a second, reading of data and model left out.
    """

    source: int
    distinct: int
    state: State
    speed: float


def augment(settings: AugmentSettings, watch: Watch) -> Outcome:
    """Writes `settings.output`, ready to be the `data` of a run: train.jsonl with each row and its
    variants, validation.jsonl as it was, labels.json.

    Memory: a chunk of rows, the source's labels, 8 bytes for each row written (`Seen`), the candidates
    of each word (word vectors only). Rows depend on the settings, never on where a kill came.

    Raises:
        ConfigError, DataError: before anything is written.
    """
    refuse_foreign(settings.output, settings.resume)
    task = data.load(settings)
    propose = proposer(settings)
    with alone(settings.output):
        file = RowsFile(settings.output, _recipe(settings, task, propose))
        before, began = file.state.rows, perf_counter()
        source = Source.of(task.train, task.label_names if settings.labels == "keep" else ())
        if not file.finished:
            _write_beside(settings.output, task)
            _write_train(settings, source, propose, file, watch)
            file.finish()
        written = file.state.rows - before
        return Outcome(len(task.train), sum(source.new), file.state, written / (perf_counter() - began))


def proposer(settings: AugmentSettings) -> Proposer:
    """Of candidates, as the settings say. Raises ConfigError if it cannot be read."""
    # Only the one that is wanted: each reads libraries of its own.
    if settings.masked_lm is not None:
        from student_trainer.augment.masked_lm import MaskedLM  # noqa: PLC0415

        return MaskedLM.load(settings)
    from student_trainer.augment.word_vectors import WordVectors  # noqa: PLC0415

    return WordVectors.load(settings)


def _recipe(settings: AugmentSettings, task: TaskData, propose: Proposer) -> dict[str, Any]:
    source = "word_vectors" if settings.masked_lm is None else "masked_lm"
    chosen = settings.model_dump(mode="json", exclude=_FREE)
    return chosen | {"data": task.digest, source: propose.fingerprint}


def _write_train(
    settings: AugmentSettings, source: Source, propose: Proposer, file: RowsFile, watch: Watch
) -> None:
    """The rows of the source that are not written yet, chunk by chunk, each new row before its variants."""
    seen = Seen()
    seen.add(source.instances)  # before all variants: none takes the place of a row of the source
    for batch in file.batches():
        seen.add(batch)
    for begin in range(file.state.done, len(source.new), CHUNK):
        instances = list(source.instances[begin : begin + CHUNK])
        drawn = _drawn(settings, instances, begin, propose)
        new = iter(seen.add(list(itertools.chain.from_iterable(drawn))))
        lines: list[str] = []
        for row, (instance, of_row) in enumerate(zip(instances, drawn, strict=True), begin):
            kept = [instance] if source.new[row] else []
            kept += [variant for variant in of_row if next(new)]
            lines += [_line(one, source.labels[row]) for one in kept]
        done = begin + len(instances)
        file.append(lines, done, dropped=len(instances) * (1 + settings.times) - len(lines))
        watch(done, len(source.new), file.state.rows)


def _drawn(
    settings: AugmentSettings, instances: list[Instance], begin: int, propose: Proposer
) -> list[list[Instance]]:
    """Variants of each instance; a text that several have is proposed for once."""
    texts = [[one.text] if one.text_pair is None else [one.text, one.text_pair] for one in instances]
    distinct = list(dict.fromkeys(itertools.chain.from_iterable(texts)))
    slots = dict(zip(distinct, propose(distinct), strict=True))
    return [
        list(
            variants(
                instance,
                [slots[text] for text in of_row],
                settings.times,
                settings.probability,
                dice_of(settings.seed, row),
            )
        )
        for row, (instance, of_row) in enumerate(zip(instances, texts, strict=True), begin)
    ]


def _write_beside(output: Path, task: TaskData) -> None:
    """All but the training rows. The names of the classes stand by themselves, to keep their order."""
    labels = _labels(task.validation, task.label_names)
    lines = map(_line, task.validation.instances, labels)
    (output / "validation.jsonl").write_text("".join(lines), "utf-8")
    names = json.dumps(task.label_names, ensure_ascii=False)
    (output / "labels.json").write_text(names + "\n", "utf-8")


def _labels(rows: Rows, names: tuple[str, ...]) -> Labels:
    """Of each row, by name; without names, none."""
    if rows.labels is None or not names:
        return [None] * len(rows)
    return [names[label] if label >= 0 else None for label in rows.labels]


def _line(instance: Instance, label: str | None) -> str:
    row = {"text": instance.text, "text_pair": instance.text_pair, "label": label}
    given = {name: value for name, value in row.items() if value is not None}
    return json.dumps(given, ensure_ascii=False) + "\n"
