"""A task's rows: from a folder or the Hugging Face hub, checked before anything is spent on them.

    settings -> split (files or hub) -> records (text, pair, label) -> label names -> TaskData

The texts are not normalised: what differs in one code point is another question to a teacher.
"""

from student_trainer.data.batches import collate, order
from student_trainer.data.settings import DataError, DataSettings
from student_trainer.data.task import Rows, TaskData, load, load_texts, longest

__all__ = [
    "DataError",
    "DataSettings",
    "Rows",
    "TaskData",
    "collate",
    "load",
    "load_texts",
    "longest",
    "order",
]
