"""A general stage that several runs have in common: the first of them learns it, the others go on from there.

What they share is a checkpoint, in a folder named by the digest of all that the stage depends on. Whether it
was learnt or taken over, a run ends with the same student and the same account.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile

from filelock import FileLock

from student_trainer import checkpoint
from student_trainer.config import ConfigError, DistillSettings
from student_trainer.costs.database import open_database
from student_trainer.costs.ledger import answered, take_over
from student_trainer.general import asked_at
from student_trainer.learner import Learner
from student_trainer.run_card import RunCard
from student_trainer.schedule import Schedule

# What counts behind the stage alone. A setting that is missing here makes it another stage, and no harm.
_LATER = {
    *("strategy", "ratio", "ratio_of", "replay", "pool", "rounds", "warm_start", "warm_share", "calibrated"),
    *("score_dropout", "label_loss", "average_over", "divergence", "temperature", "kd_weight"),
    *("patient_weight", "metric", "validation_split", "preset"),
}


class SharedStage:
    """One run's general stage, and where others find it.

    Args:
        shared: the folder of all such stages.
        settings: of the run; it has a general stage.
        card: the run's.
        learner: with the student as the run begins with it.
        schedule: of the run.
        depends_on: what the settings do not say: the teacher's fingerprint, the rows' digest, the tariff.
    """

    def __init__(
        self,
        shared: Path,
        settings: DistillSettings,
        card: RunCard,
        learner: Learner,
        schedule: Schedule,
        depends_on: Sequence[str],
    ) -> None:
        self._settings, self._run, self._steps = settings, card.id, schedule.general
        self._questions = sum(asked_at(step, settings, schedule) for step in range(schedule.general))
        recipe = {name: value for name, value in card.recipe.items() if name not in _LATER}
        digest = hashlib.sha256(json.dumps([*depends_on, recipe], sort_keys=True).encode())
        for module in (learner.model, *learner.projections):
            for weights in module.state_dict().values():
                digest.update(weights.float().cpu().numpy().tobytes())
        self._folder = shared / digest.hexdigest()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._author = self._folder / "run"

    def take_over(self) -> None:
        """Lets a run that has learnt nothing yet begin behind the stage, if another run has learnt it.

        To the ledger its questions were asked, and their answers kept: so they must be in this run's file.
        """
        if checkpoint.latest(self._settings.output):
            return
        with self._locked():
            found = checkpoint.latest(self._folder)
            if found is None or not self._whole(author := self._author.read_text()):
                return
            account = self._settings.account or self._run
            with closing(open_database(self._settings.answers)) as database:
                take_over(database, author, self._run, account, self._steps, datetime.now(UTC))
            checkpoint.copy(found, self._settings.output)

    def keep(self, learner: Learner) -> None:
        """For others: the run as it is right behind the stage, unless a question of it has no answer."""
        if not self._whole(self._run):
            return
        with self._locked():
            checkpoint.remove(self._folder)  # of whom this run could not take it over
            self._author.write_text(self._run)
            checkpoint.save(learner.accelerator, self._folder, self._steps)

    def _whole(self, run: str) -> bool:
        """Whether all that the stage asks was answered to this run, and into our file."""
        with closing(open_database(self._settings.answers)) as database:
            return answered(database, run, self._steps) == self._questions

    def _locked(self) -> FileLock:
        return FileLock(self._folder / ".lock")


def refuse_unwritable(folder: Path) -> None:
    """Makes the folder of shared stages; raises ConfigError if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"general_folder: cannot be written: {error}; name another") from None
