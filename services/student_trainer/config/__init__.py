"""Every setting of student-trainer: a YAML file's fields and the flags, which win over the file.

    student-trainer distill --config run.yaml --ratio 0.1

`parse` reads them; the classes do not know where their values came from. All mistakes are shown
together, each with the field, the value and the remedy, before anything is spent.
"""

from student_trainer.config.bench import BenchSettings, SuiteSettings
from student_trainer.config.distill import DistillSettings
from student_trainer.config.other import (
    AugmentSettings,
    LedgerSettings,
    PriceSettings,
    ReconcileSettings,
    RecordSettings,
)
from student_trainer.config.reading import ConfigError, Settings, made, names_suite, parse
from student_trainer.config.training import FinetuneSettings, TrainingSettings

__all__ = [
    "AugmentSettings",
    "BenchSettings",
    "ConfigError",
    "DistillSettings",
    "FinetuneSettings",
    "LedgerSettings",
    "PriceSettings",
    "ReconcileSettings",
    "RecordSettings",
    "Settings",
    "SuiteSettings",
    "TrainingSettings",
    "made",
    "names_suite",
    "parse",
]
