"""Rows that the tests of data write."""

import json
from pathlib import Path

FOUR: list[dict[str, object]] = [{"text": "dull", "label": 0}, {"text": "fine", "label": 1}] * 2


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
