"""Settings of `bench`: a grid of runs, or a suite of them."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from student_trainer.config.distill import DistillSettings
from student_trainer.config.reading import Named, Numbers, Several


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
    rows: Several = Field([], description="run and report on these rows of the suite alone; default: all")
    baselines: Several = Field(
        [], description="rows, or lines, that the others are tested against; default: the suite's"
    )
    results: Path | None = Field(
        None, description="results to go on with and to add to; default: results.jsonl in the output folder"
    )
    keep_models: bool = Field(False, description="keep each run's student; a report needs none of them")
    dry_run: bool = Field(False, description="only say what one process would run, ask and pay at most")
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
