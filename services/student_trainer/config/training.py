"""Settings that `finetune` and `distill` have in common."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from student_trainer.config.reading import Layers, Settings
from student_trainer.data import DataSettings

Metric = Literal["accuracy", "f1", "matthews"]


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
    snapshots: int = Field(
        0,
        ge=0,
        description="keep the student of so many evenly spaced steps, the first one included, in the output "
        "folder: figure 4 looks at what selections were made by",
    )
    resume: bool = Field(False, description="go on from the output folder's checkpoint, if it has one")


class FinetuneSettings(TrainingSettings):
    """`student-trainer finetune`: a teacher, or a student without a teacher, from labels alone."""
