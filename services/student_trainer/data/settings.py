"""Where a task's rows are, and what their columns are called."""

from collections.abc import Mapping

from pydantic import BaseModel, Field

from student_trainer.errors import UserError

Row = Mapping[str, object]
Located = tuple[str, Row]  # a row behind its place, as an error names it: "train.jsonl, line 7"


class DataError(UserError):
    """The data cannot be used; the text names the file, the row, the column, the value and the remedy."""


class DataSettings(BaseModel, extra="forbid"):
    data: str = Field(
        description="folder with train and validation as .jsonl, .json, .csv, .tsv or .parquet (one file, "
        "numbered shards, or a sub-folder each), or the name of a data set on the Hugging Face hub"
    )
    subset: str | None = Field(None, description="configuration of a hub data set, such as mrpc of glue")
    train_split: str = Field("train", description="split to learn from; its labels may be missing")
    validation_split: str = Field(
        "validation", description="split to evaluate on; valid, val and dev are tried too"
    )
    text_column: str = Field(
        "auto", description="column of the text; auto tries text, sentence, sentence1, premise, …"
    )
    pair_column: str | None = Field(
        "auto", description="column of the second text; auto takes the usual partner of the first; null: none"
    )
    label_column: str = Field(
        "auto", description="column of the label; auto tries label, gold_label, Quality, …"
    )
    label_names: list[str] | None = Field(
        None,
        description="class names in order of the class ids; else the data set's own (features, labels.txt, "
        "labels.json), else the labels themselves, sorted",
    )
    max_rows: int | None = Field(None, ge=1, description="only the first rows of train, for a quick look")


def shown(value: object) -> str:
    """A value in an error's text: short enough for one line."""
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
