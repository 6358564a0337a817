"""A student and what trains it: tokenizer, optimizer, schedule, and Accelerate underneath."""

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, get_linear_schedule_with_warmup

from student_trainer.config import TrainingSettings
from student_trainer.data import collate
from teacher_api.messages import Instance


class Learner:
    """The recipe of the paper's appendix D: AdamW, linear warm-up then linear decay, clipped gradients."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: TrainingSettings,
        total_steps: int,
    ) -> None:
        self.accelerator = Accelerator(mixed_precision=settings.precision, cpu=settings.cpu)
        self.tokenizer, self.settings = tokenizer, settings
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        warmup = round(settings.warmup * total_steps)
        schedule = get_linear_schedule_with_warmup(optimizer, warmup, total_steps)  # type: ignore[no-untyped-call]
        self.model, self.optimizer, self.schedule = self.accelerator.prepare(model, optimizer, schedule)

    def logits(self, instances: Sequence[Instance]) -> Tensor:
        """Predictions with gradient, dropout on: [n, C]."""
        self.model.train()
        return self._forward(instances)

    @torch.inference_mode()
    def scores(self, instances: Sequence[Instance], *, dropout: bool) -> Tensor:
        """Predictions to measure doubt by, without gradient: [n, C]."""
        self.model.train(dropout)
        return self._forward(instances)

    def update(self, loss: Tensor | None) -> None:
        """One step down the loss. Without a loss (nothing answered, nothing labelled) only time passes."""
        if loss is not None:
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.schedule.step()

    @property
    def learning_rate(self) -> float:
        return float(self.schedule.get_last_lr()[0])

    def _forward(self, instances: Sequence[Instance]) -> Tensor:
        batch = collate(self.tokenizer, instances, self.settings.max_length, self.accelerator.device)
        logits: Tensor = self.model(**batch).logits
        return logits
