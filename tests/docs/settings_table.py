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
    from student_trainer.config import BenchSettings, DistillSettings
    from teacher_server.settings import Settings

    grid = set(BenchSettings.model_fields) - set(DistillSettings.model_fields)
    return {
        "teacher-server": _table(Settings, set(Settings.model_fields)),
        "student-trainer": _table(DistillSettings, set(DistillSettings.model_fields)),
        "bench": _table(BenchSettings, grid),
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


def _table(settings: type[BaseModel], names: set[str]) -> str:
    rows = [
        f"| `--{name.replace('_', '-')}` | {_default(field.default)} | {field.description} |"
        for name, field in settings.model_fields.items()
        if name in names
    ]
    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *rows]) + "\n"


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    return "" if value is None else f"`{value}`"


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
