"""The README's tables of settings, out of the settings themselves: `make docs` writes them.

python tests/docs/settings_table.py
"""

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

README = Path(__file__).parents[2] / "README.md"


def tables() -> dict[str, str]:
    """Name of the README's marker -> Markdown table."""
    from student_trainer.config import (
        AugmentSettings,
        BenchSettings,
        DistillSettings,
        RecordSettings,
        SuiteSettings,
    )
    from student_trainer.data import DataSettings
    from teacher_server.settings import Settings

    return {
        "teacher-server": _table(Settings),
        "student-trainer": _table(DistillSettings),
        "bench": _table(BenchSettings, beside=DistillSettings),
        "suite": _table(SuiteSettings, beside=DistillSettings),
        "record": _table(RecordSettings, beside=DataSettings),
        "augment": _table(AugmentSettings, beside=DataSettings),
    }


def written(readme: str) -> str:
    """The README with its tables as they should be."""
    for name, table in tables().items():
        marks = rf"(<!-- settings of {name} -->\n).*?(<!-- end -->)"
        readme, count = re.subn(
            marks, lambda found, table=table: f"{found[1]}{table}{found[2]}", readme, flags=re.S
        )
        assert count == 1, f"README.md has no place for the settings of {name}"
    return readme


def _table(settings: type[BaseModel], beside: type[BaseModel] = BaseModel) -> str:
    """A row a setting, without those that it shares with `beside`."""
    rows = [
        f"| `--{name.replace('_', '-')}` | {_default(field.default)} | {field.description} |"
        for name, field in settings.model_fields.items()
        if name not in beside.model_fields
    ]
    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *rows]) + "\n"


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    return "" if value in (None, []) else f"`{value}`"


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
