"""A general stage that several runs have in common: the first of them learns it, the others go on from there.

What they share is a checkpoint, in a folder named by the digest of all that the stage depends on. Whether it
was learnt or taken over, a run ends with the same student and the same account.
"""

import hashlib
import json
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from filelock import FileLock

from student_trainer import checkpoint
from student_trainer.config import ConfigError, DistillSettings
from student_trainer.costs.database import open_database
from student_trainer.costs.ledger import take_over
from student_trainer.learner import Learner
from student_trainer.run_card import RunCard
from student_trainer.schedule import Schedule

# What counts behind the stage alone. A setting that is missing here makes it another stage, and no harm.
_LATER = {
    *("strategy", "ratio", "ratio_of", "replay", "pool", "rounds", "warm_start", "warm_share", "calibrated"),
    *("score_dropout", "label_loss", "average_over", "divergence", "temperature", "kd_weight"),
    *("patient_weight", "metric"),
}


@dataclass(frozen=True)
class SharedStage:
    """One run's general stage, and where others find it.

    Attributes:
        settings: of the run.
        card: the run's.
        steps: of the stage.
        folder: of this very stage.
    """

    settings: DistillSettings
    card: RunCard
    steps: int
    folder: Path

    @classmethod
    def of(
        cls, settings: DistillSettings, card: RunCard, learner: Learner, schedule: Schedule, asked: list[str]
    ) -> Self | None:
        """None without a general stage, or a folder for it. The student must be as the run begins with it.

        Args:
            asked: the teacher's fingerprint, and the digest of the rows.
        """
        if not schedule.general or not settings.general_folder:
            return None
        recipe = {name: value for name, value in card.recipe.items() if name not in _LATER}
        digest = hashlib.sha256(json.dumps([*asked, recipe], sort_keys=True).encode())
        for module in (learner.model, *learner.projections):
            for weights in module.state_dict().values():
                digest.update(weights.float().cpu().numpy().tobytes())
        return cls(settings, card, schedule.general, settings.general_folder / digest.hexdigest())

    def take_over(self) -> None:
        """Lets a run that has learnt nothing yet begin behind the stage, if another run has learnt it.

        To the ledger its questions were asked, and their answers kept: so they must be in this run's file.
        """
        found, output = checkpoint.latest(self.folder), self.settings.output
        if found is None or checkpoint.latest(output):
            return
        author, account = self._author.read_text(), self.settings.account or self.card.id
        with closing(open_database(self.settings.answers)) as database:
            there = take_over(database, author, self.card.id, account, self.steps, datetime.now(UTC))
        if there:
            checkpoint.copy(found, output)

    def keep(self, learner: Learner) -> None:
        """For others: the run as it is right behind the stage."""
        self.folder.mkdir(exist_ok=True)
        with FileLock(self.folder / ".lock"):  # two may come here at once
            if checkpoint.latest(self.folder) is None:
                self._author.write_text(self.card.id)
                checkpoint.save(learner.accelerator, self.folder, self.steps)

    @property
    def _author(self) -> Path:
        return self.folder / "run"


def refuse_unwritable(folder: Path | None) -> None:
    """Makes the folder of shared stages; raises ConfigError if that cannot be."""
    try:
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"general_folder: cannot be written: {error}; name another") from None
