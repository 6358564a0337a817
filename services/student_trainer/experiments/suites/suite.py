"""What a suite's file says: rows (a name, settings of `distill`), data sets, seeds, the paper's scores."""

from collections.abc import Iterator
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from student_trainer.config import ConfigError
from student_trainer.config.reading import listed, mistakes

_FILES = files("student_trainer.experiments.suites")
_DATA_SETS = "data_sets"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Row(_Strict):
    """One line of a table: what is done, and the paper's score of it.

    Attributes:
        name: as the table has it; a command names several with commas between them, so it has none.
        line: of a figure, to which the row's point belongs; its own name if it is not said.
        settings: of `distill`, over the suite's; `teacher` holds names such as small, [] for no KD.
        each: a row for each combination of these values; name and line may hold {setting}.
        published: the paper's score by data set.
        published_gflops: its #FLOPs, per instance.
        only_published: of a model that the suite does not train, such as a teacher.
    """

    name: str = Field(min_length=1)
    line: str = ""
    settings: dict[str, Any] = {}
    each: dict[str, list[Any]] = {}
    published: dict[str, float] = {}
    published_gflops: float | None = None
    only_published: bool = False

    def expanded(self) -> Iterator["Row"]:
        """Raises ValueError if its name or its line speaks of a setting that `each` does not have."""
        for values in product(*self.each.values()):
            own = dict(zip(self.each, values, strict=True))
            yield self.model_copy(
                update={
                    "name": self._filled(self.name, own),
                    "line": self._filled(self.line or self.name, own),
                    "settings": self.settings | own,
                    "each": {},
                }
            )

    def _filled(self, text: str, own: dict[str, Any]) -> str:
        try:
            return text.format(**own)
        except (LookupError, ValueError):
            raise ValueError(f"rows: {text!r} may hold {{setting}} for each of {list(self.each)}") from None


class Figure(_Strict):
    """What is drawn, a panel for each data set.

    Attributes:
        kind: `dots`, the score of each row; `lines`, scores over a setting; `steps`, what a run was like
            over its steps; `map`, the training rows in two dimensions with the selected marked.
        x: the setting of `lines`.
        y: of `steps`: kl_weight (λ_KL), teacher_entropy, centre_distance, distance_then (of what was
            asked).
        gain_over: of `lines`: draw the gain over this line's score at the same x, seed by seed.
        levels: rows drawn as levels across.
        caption: what is to be seen.
    """

    kind: Literal["dots", "lines", "steps", "map"] = "dots"
    x: str = ""
    y: list[Literal["kl_weight", "teacher_entropy", "centre_distance", "distance_then"]] = []
    gain_over: str | None = None
    levels: list[str] = []
    caption: str = ""


class Suite(_Strict):
    """A table or a figure of the paper.

    Attributes:
        title: in our words.
        paper: which table or figure it is; empty of one's own.
        note: what a reader must know to compare.
        data: the data sets on which the paper has it.
        seeds: repetitions of each row.
        settings: of `distill`, for all rows; the defaults are the paper's recipe.
        rows: expanded.
        baselines: rows, or lines of a figure; every other row is tested against the best of them, of a line
            against its row at the same x.
        no_kd: the row without a teacher, if there is one.
        full_kd: the row that asks about all: the gain of one over the other is what the rest keep a part of.
        figure: to be drawn.
    """

    title: str
    paper: str = ""
    note: str = ""
    data: list[str] = []
    seeds: list[int] = Field([0, 1, 2], min_length=1)
    settings: dict[str, Any] = {}
    rows: list[Row] = Field(min_length=1)
    baselines: list[str] = []
    no_kd: str | None = None
    full_kd: str | None = None
    figure: Figure = Figure()

    @model_validator(mode="after")
    def _rows_are_named(self) -> Self:
        rows = [row for given in self.rows for row in given.expanded()]
        names = [row.name for row in rows]
        named = {*self.figure.levels, *filter(None, (self.no_kd, self.full_kd))}
        compared = set(self.baselines) - {row.line for row in rows}
        runs = [row for row in rows if not row.only_published]
        if unnameable := [name for row in runs for name in (row.name, row.line) if "," in name]:
            raise ValueError(f"rows: {unnameable} could not be asked for: commas are between names")
        if len(set(names)) < len(names):
            raise ValueError(f"rows: a name is there twice in {names}")
        if missing := sorted((named | compared) - set(names)):
            raise ValueError(f"rows: {missing} are spoken of, and are not among {names}")
        object.__setattr__(self, "rows", rows)
        return self

    def teachers_of(self, row: Row) -> list[str]:
        """Their names."""
        return [] if row.only_published else listed((self.settings | row.settings).get("teacher"))

    def is_baseline(self, row: Row) -> bool:
        return bool({row.name, row.line} & set(self.baselines))

    def place_of(self, row: Row) -> Any:
        """Its x, where lines are the baselines; rows are compared with those of the same one."""
        by_name = {row.name for row in self.rows}.issuperset(self.baselines)
        return None if by_name else row.settings.get(self.figure.x)

    @model_validator(mode="after")
    def _figure_can_be_drawn(self) -> Self:
        figure = self.figure
        if figure.kind == "steps" and not figure.y:
            raise ValueError("figure: steps needs y, such as [kl_weight]")
        points = [row for row in self.rows if not row.only_published and row.name not in figure.levels]
        lacking = [row.name for row in points if figure.x not in row.settings]
        if figure.kind == "lines" and lacking:
            raise ValueError(f"figure: x is {figure.x!r}, which the rows {lacking} do not set")
        return self


def available() -> list[str]:
    """Names of the suites that come with the package."""
    names = [file.name.removesuffix(".yaml") for file in _FILES.iterdir() if file.name.endswith(".yaml")]
    return sorted(name for name in names if name != _DATA_SETS)


def load(name: str) -> Suite:
    """A suite that comes with the package, or of a YAML file of the same form.

    Raises:
        ConfigError: no such suite, or the file is broken.
    """
    own = Path(name).suffix in (".yaml", ".yml")
    if not own and name not in available():
        raise ConfigError(f"suite: no {name!r}; choose one of {', '.join(available())}, or give a .yaml file")
    try:
        text = Path(name).read_text() if own else _FILES.joinpath(f"{name}.yaml").read_text()
        content = yaml.safe_load(text)
        if not isinstance(content, dict):
            raise ConfigError(f"suite: {name} must hold `field: value` lines, with rows among them")
        return Suite.model_validate(content)
    except ValidationError as error:
        raise ConfigError("\n".join(f"suite {name}: {line}" for line in mistakes(error, Suite))) from None
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"suite: {name} cannot be read: {error}; give a YAML file of rows") from None


def data_sets() -> dict[str, dict[str, Any]]:
    """The data sets that suites know by name, with the settings that the paper has for each."""
    known: dict[str, dict[str, Any]] = yaml.safe_load(_FILES.joinpath(f"{_DATA_SETS}.yaml").read_text())
    return known
