"""Settings of `distill`: which questions are asked, of whom, at what price, and what is learnt."""

from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from student_trainer.config import presets
from student_trainer.config.presets import Preset
from student_trainer.config.reading import Several, listed
from student_trainer.config.training import TrainingSettings
from student_trainer.dynamics.adoption import Adoption
from student_trainer.dynamics.selection import Rounding, Strategy, how_many
from student_trainer.dynamics.supervision import Supervision
from student_trainer.dynamics.uncertainty import SCORES
from student_trainer.layers import named_pairs
from student_trainer.losses import Divergence
from teacher_api.messages import HiddenDType


class DistillSettings(TrainingSettings):
    """`student-trainer distill`: which questions are asked, of whom, at what price, and what is learnt."""

    preset: Preset | None = Field(
        None,
        description="paper: as its text says; reference: as its released code does; tinybert: a general "
        "stage first; dynamic: what was best for the money; what is set wins",
    )
    teacher: Several = Field(
        [],
        description="grpc://, grpcs://, http://, https://, local:FOLDER or recorded:FILE; several: a,b, "
        "smallest first; grpc://host:port+host:port: the servers of one; none: labels alone",
    )
    teacher_labels: list[str] | None = Field(
        None, description="the one teacher's class names in its own order, where its checkpoint has none"
    )
    adoption: Adoption = Field(
        "single",
        description="of several teachers: ensemble asks all alike; by the student's entropy, whatever the "
        "strategy, hard asks one for each instance, soft weighs two (§3.1), soft-batch by the mean over all "
        "that a step asks about",
    )
    check_rows: int = Field(
        64,
        ge=0,
        description="validation rows asked first, for the teacher's own score beside the student's and to "
        "warn of a bad one (20 or more tell it from chance), for a tenth of the budget at most",
    )
    answers: Path = Field(
        Path("answers.sqlite"), description="kept answers and the ledger: never asked again, in any run"
    )
    strategy: Strategy = Field(
        "entropy",
        description="which instances of a batch are asked about (§3.2), by the score of this name, of a pass "
        "without gradient; random: the control",
    )
    ratio: float = Field(0.1, gt=0, le=1, description="share of a batch that is asked about: the r of §3.2")
    ratio_of: Literal["batch", "rows"] = Field(
        "batch", description="rows: the ratio is the share of all rows that the whole run asks about"
    )
    replay: bool = Field(
        False,
        description="ask about a row once only, and learn again from the run's own answers: where labels "
        "count on all when their rows come up, else in every batch, filled up with them; it costs no query",
    )
    pool: int | None = Field(
        None,
        ge=1,
        description="choose in rounds among so many rows without an answer, drawn anew each time, instead of "
        "within each batch; implies replay, and ratio-of rows",
    )
    rounds: int = Field(10, ge=1, description="with pool: over the first epoch")
    warm_start: Literal["none", "random", "coverage"] = Field(
        "none",
        description="how the first questions are chosen, before doubt means anything; coverage, with pool, "
        "takes the rows nearest to the centres of the encoder's vectors (k-means)",
    )
    warm_share: float = Field(0.2, gt=0, lt=1, description="of the steps, or the rounds, with a warm start")
    calibrated: bool = Field(
        False,
        description="with pool: measure doubt at the temperature that fitted the answers of the round before",
    )
    rounding: Rounding = Field(
        "nearest",
        description="of N·r; floor is the released code's choice, spread carries the rest to the next step",
    )
    score_dropout: bool = Field(False, description="leave dropout on in the pass that scores doubt")
    use_labels: bool = Field(
        True,
        description="off: train as if no training row had a label, by the teacher's answers alone; a bench "
        "then has no row without a teacher",
    )
    label_loss: Literal["selected", "all"] = Field(
        "all",
        description="gold labels, where there are any, count on the whole batch (as in the released code), "
        "or on the asked instances alone (eq. 10: cheaper to compute, and far worse at small r)",
    )
    average_over: Literal["losses", "rows"] = Field(
        "losses",
        description="losses: labels, predictions and states each have a mean of their own (eq. 3, 11), so "
        "that two answers weigh as much as a batch's labels; rows: each row counts alike, by what it has",
    )
    divergence: Divergence = Field("kl", description="KL(teacher‖student)·τ², eq. 1's direction, or MSE")
    temperature: float = Field(1.0, gt=0, description="τ of eq. 1")
    kd_weight: float = Field(0.5, ge=0, le=1, description="λ of eq. 3, λ*_KL of eq. 13")
    supervision: Supervision = Field(
        "none",
        description="also learn from hidden states (eq. 11-12): static, the same weights for all; dynamic, "
        "weighed by the entropy of the very predictions that are learnt from (eq. 13)",
    )
    patient_weight: float = Field(
        0.1, ge=0, description="λ*_PT of eq. 13, to be searched for: much of it drowns the labels"
    )
    layer_map: str = Field(
        "skip",
        description="matched layers: skip (every n-th of the teacher), last, uniform (as skip, and from the "
        "embeddings to the last layer), or teacher:student, as 2:1,4:2; of several teachers one for all, or "
        "one for each, as '2:1,4:2;4:1,8:2' (in a suite by name: 'small=2:1,4:2;large=4:1,8:2')",
    )
    general_epochs: float = Field(
        0,
        ge=0,
        description="passes of TinyBERT's general stage, before all others: the student learns the teacher's "
        "whole hidden states and attentions in the matched layers, without labels and predictions",
    )
    general_ratio: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of a batch that the general stage asks about, at random: there is no doubt yet",
    )
    general_attentions: bool = Field(
        True, description="off: hidden states alone, where the heads differ in number or none are given"
    )
    general_folder: Path | None = Field(
        None,
        description="folder where runs with the same general stage share it (not those with snapshots): the "
        "first one learns it for all that ask and learn otherwise behind it; a bench has one of its own",
    )
    pooling: Literal["cls", "mean"] = Field("cls", description="of hidden states, over an instance's tokens")
    hidden_dtype: HiddenDType = Field(
        "float32", description="of hidden states on the wire and on disk; float16 halves them"
    )
    account: str | None = Field(
        None,
        min_length=1,
        description="runs of one account share budgets, free units and tiers, at the same time too; "
        "default: the run's own",
    )
    budget_queries: int | None = Field(None, ge=1, description="most queries the account may be charged")
    budget_usd: Decimal | None = Field(None, gt=0, description="most dollars the account may be charged")
    when_spent: Literal["stop", "labels-only"] = Field("stop", description="what to do without money")
    price_book: Several = Field(
        [],
        description="a book that comes with us, or the path of your own; one, or one for each teacher (in a "
        "suite by name: small=BOOK,large=BOOK)",
    )
    price_feature: Several = Field(
        ["sentiment"], description="the tariff in the book; one, or one for each teacher"
    )

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: dict[str, Any]) -> dict[str, Any]:
        teachers = listed(given.get("teacher"))
        return presets.applied(given, len(teachers) if isinstance(teachers, list) else 0)

    @property
    def batch_ratio(self) -> float:
        """Share of a batch, whatever the ratio is of."""
        return self.ratio if self.ratio_of == "batch" else min(1.0, self.ratio / self.epochs)

    @property
    def by_teacher(self) -> list[Self]:
        """The same as each teacher has it: with its own map of layers."""
        maps = self.layer_map.split(";")
        own = maps * len(self.teacher) if len(maps) == 1 else maps
        return [self.model_copy(update={"layer_map": layer_map}) for layer_map in own]

    @property
    def adopts_by_doubt(self) -> bool:
        """Whether who is asked depends on the student's doubt."""
        return self.adoption in ("hard", "soft", "soft-batch")

    @property
    def student_decides(self) -> bool:
        """Whether what is asked, or of whom, depends on the student's doubt."""
        return self.strategy in SCORES or self.adopts_by_doubt

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.teacher:
            self.strategy, self.ratio = "all", 1.0  # every row's label is there for nothing
        if self.budget_usd is not None and not self.price_book:
            raise ValueError("budget_usd: dollars need a tariff; set price_book, or use budget_queries")
        if not self.teacher and not self.use_labels:
            raise ValueError("use_labels: without labels and without a teacher there is nothing to learn")
        if not self.use_labels:  # the same where all that is learnt is answers, so one cell of a suite
            self.average_over, self.label_loss = "losses", "all"
        if not self.teacher and (self.budget_queries or self.budget_usd):
            raise ValueError("teacher: a budget without a teacher buys nothing; set teacher, or drop it")
        return self

    @model_validator(mode="after")
    def _something_is_asked(self) -> Self:
        floored = self.rounding == "floor" and self.strategy != "all" and self.pool is None
        if self.teacher and floored and not how_many(self.batch_size, self.batch_ratio, "floor"):
            raise ValueError(
                f"ratio: {self.ratio} of a batch of {self.batch_size} is less than one question, and floor "
                "makes it none; raise ratio or batch_size, or set rounding nearest"
            )
        return self

    @model_validator(mode="after")
    def _rounds_fit_together(self) -> Self:
        if self.pool is not None:
            self.replay, self.ratio_of = True, "rows"
            if self.strategy == "all":
                raise ValueError("pool: there is nothing to choose with strategy all; choose another")
        elif self.warm_start == "coverage":
            raise ValueError("warm_start: coverage looks at more than a batch; set pool, or choose random")
        elif self.calibrated:
            raise ValueError("calibrated: it learns from round to round; set pool, or leave it out")
        return self

    @model_validator(mode="after")
    def _teachers_fit_together(self) -> Self:
        teachers = len(self.teacher)
        if teachers > 1 and self.adoption == "single":
            raise ValueError(
                f"adoption: single asks one teacher, not {teachers}; choose another, such as soft"
            )
        if teachers < 2 and self.adoption != "single":
            raise ValueError(
                f"adoption: {self.adoption} chooses among two teachers or more, not {teachers}; name them, "
                "smallest first, or choose single"
            )
        if teachers > 1 and self.teacher_labels:
            raise ValueError(
                "teacher_labels: cannot be said of several; give each checkpoint its label names"
            )
        maps = self.layer_map.split(";")
        for name, given in (
            ("price_book", self.price_book),
            ("price_feature", self.price_feature),
            ("layer_map", maps),
        ):
            if len(given) > 1 and len(given) != teachers:
                raise ValueError(
                    f"{name}: {len(given)} are named for {teachers} teachers; name one, or one for each"
                )
        if self.general_epochs and teachers != 1:
            raise ValueError(
                f"general_epochs: the general stage learns from one teacher, not {teachers}; name one, "
                "or set 0"
            )
        for layer_map in maps:
            named_pairs(layer_map)  # refuses what is no map, also where it is not used
        if not teachers and self.supervision != "none":
            raise ValueError(f"supervision: {self.supervision} needs a teacher's hidden states; set teacher")
        return self

    @model_validator(mode="after")
    def _what_is_paid_counts(self) -> Self:
        if self.teacher and not self.kd_weight and self.supervision == "none" and not self.general_epochs:
            raise ValueError(
                "kd_weight: 0 gives the teacher's answers no weight, and they are paid; raise it, or leave "
                "the teacher out"
            )
        if self.supervision == "static" and not self.patient_weight:
            raise ValueError(
                "patient_weight: 0 gives the hidden states no weight, and they are asked for; raise it, or "
                "choose supervision none"
            )
        return self
