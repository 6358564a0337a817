"""Which instances a run selected, looked at once it is done: figures 4 and 5.

The ledger knows what was asked at each step, the kept answers what the teacher said, and the trained student
gives each training row a vector: its last layer's [CLS]. Nothing is asked for this.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.manifold import TSNE  # type: ignore[import-untyped]

from student_trainer import data, student
from student_trainer.config import DistillSettings
from student_trainer.costs.database import open_database
from student_trainer.costs.summary import LAST
from student_trainer.data import TaskData
from student_trainer.dynamics.uncertainty import entropy
from student_trainer.evaluate import vectors
from student_trainer.schedule import Schedule
from student_trainer.teachers.store import Store

Points = list[tuple[int, float]]  # step, value
Vectors = npt.NDArray[np.float32]
BATCH = 64
MAPPED = 600  # rows on a map
_ASKED = (
    "SELECT step, row, key FROM ledger WHERE run = ? AND step >= 0 AND outcome NOT IN ('refused', 'failed')"
)


@dataclass(frozen=True)
class Asked:
    """A question of the run: the step, the training row, and the key of its answer."""

    step: int
    row: int
    key: bytes


def teacher_entropy(settings: DistillSettings) -> Points:
    """Of what was asked at each step: mean entropy of the teacher's predictions, in nats (Figure 4, left)."""
    asked = _asked(settings)
    with closing(open_database(settings.answers)) as database:
        found = Store(database, made=True).get_many({one.key for one in asked})
    doubt = {key: float(entropy(torch.tensor(out.logits)[None])) for key, out in found.items()}
    return _by_step((one.step, doubt[one.key]) for one in asked if one.key in doubt)


def centre_distance(settings: DistillSettings) -> Points:
    """Of what was asked at each step: mean distance to the centre of its gold class among the trained
    student's vectors; 1 is the mean over all rows (Figure 4, right). Empty without gold labels."""
    task = data.load(settings)
    if task.train.labels is None:
        return []
    labels = np.array(task.train.labels)
    distances = distances_to_centres(_vectors(settings, task, range(len(labels))), labels)
    known = ((one.step, float(distances[one.row])) for one in _asked(settings) if labels[one.row] >= 0)
    return _by_step(known)


def distance_then(settings: DistillSettings) -> Points:
    """As `centre_distance`, but among the vectors of the student of the time: of the last snapshot before the
    step. Empty without gold labels, or snapshots."""
    task = data.load(settings)
    taken = {int(folder.name): folder for folder in (settings.output / "snapshots").glob("[0-9]*")}
    if task.train.labels is None or not taken:
        return []
    labels = np.array(task.train.labels)
    asked = [one for one in _asked(settings) if labels[one.row] >= 0]
    found: Points = []
    for first, end in pairwise([*sorted(taken), LAST]):
        vectors = _vectors(settings, task, range(len(labels)), taken[first])
        distances = distances_to_centres(vectors, labels)
        found += [(one.step, float(distances[one.row])) for one in asked if first <= one.step < end]
    return _by_step(found)


def distances_to_centres(vectors: Vectors, labels: npt.NDArray[np.int64]) -> Vectors:
    """[n, h], [n] -> [n]: from each vector to the mean of its class, over the mean of all such distances."""
    found = np.full(len(vectors), np.nan, np.float32)
    for label in set(labels[labels >= 0].tolist()):
        own = labels == label
        found[own] = np.linalg.norm(vectors[own] - vectors[own].mean(0), axis=1)
    return found / np.nanmean(found)


def map_of(settings: DistillSettings) -> dict[str, list[float | None]]:
    """Evenly spaced training rows in two dimensions (t-SNE), their gold class, and whether the last epoch
    asked about them (Figure 5): four lists, a value a row; the class is -1 without a label."""
    task = data.load(settings)
    total = len(task.train)
    rows = sorted({place * total // MAPPED for place in range(MAPPED)})
    schedule = Schedule.of(task.train, settings)
    last = {one.row for one in _asked(settings) if one.step >= schedule.total - schedule.steps_an_epoch}
    flat = TSNE(perplexity=min(30, (len(rows) - 1) / 3), init="pca", random_state=settings.seed)
    across, up = flat.fit_transform(_vectors(settings, task, rows)).T.tolist()
    labels = task.train.labels
    return {
        "map_x": across,
        "map_y": up,
        "map_class": [-1.0 if labels is None else float(labels[row]) for row in rows],
        "map_selected": [float(row in last) for row in rows],
    }


def _asked(settings: DistillSettings) -> list[Asked]:
    run = json.loads((settings.output / "run.json").read_text())["id"]
    with closing(open_database(settings.answers)) as database:
        return [Asked(*row) for row in database.execute(_ASKED, (run,))]


def _by_step(values: Iterable[tuple[int, float]]) -> Points:
    """Means."""
    found = defaultdict(list)
    for step, value in values:
        found[step].append(value)
    return [(step, float(np.mean(several))) for step, several in sorted(found.items())]


def _vectors(
    settings: DistillSettings, task: TaskData, rows: Sequence[int], folder: Path | None = None
) -> Vectors:
    """[len(rows), h] of the run's trained student, or of the one in this folder."""
    device = "cuda" if torch.cuda.is_available() and not settings.cpu else "cpu"
    folder = folder or settings.output / "model"
    model, tokenizer = student.load(str(folder), task.label_names, None, settings.seed)
    model.to(torch.device(device))  # type: ignore[arg-type]  # a decorator hides self from mypy
    instances = [task.train.instances[row] for row in rows]
    found: Vectors = vectors(model, tokenizer, instances, settings.max_length, BATCH, device).numpy()
    return found
