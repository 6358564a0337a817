"""A student and what trains it: tokenizer, optimizer, schedule, and Accelerate underneath."""

import ctypes
import sys
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    BatchEncoding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from student_trainer.attentions import telling_attentions
from student_trainer.config import TrainingSettings
from student_trainer.data import collate
from student_trainer.errors import DivergedError
from student_trainer.evaluate import pooled, predict, vectors
from student_trainer.insides import Insides, Insight
from student_trainer.layers import Projection
from student_trainer.objective import Predictions
from student_trainer.padding import skip_padding
from teacher_api.messages import Instance, Pooling


class Learner:
    """The recipe of the paper's appendix D: AdamW, linear warm-up then linear decay, clipped gradients.

    Projections of hidden states are trained beside the student, and are no part of it.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: TrainingSettings,
        total_steps: int,
        projections: Sequence[Projection] = (),
        general_steps: int = 0,
    ) -> None:
        self.accelerator = Accelerator(mixed_precision=settings.precision, cpu=settings.cpu)
        self.tokenizer, self.settings = tokenizer, settings
        if self.accelerator.device.type == "cpu":  # a GPU is faster with few large kernels, padding and all
            skip_padding(model)
            _keep_large_blocks()
        # Only those with something to learn: a distributed wrapper refuses all others.
        wide = [projection for projection in projections if any(True for _ in projection.parameters())]
        optimizer = torch.optim.AdamW(
            [parameter for module in (model, *wide) for parameter in module.parameters()],
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,  # the plain loop over parameters took a quarter of a step on a CPU
        )
        stages = [general_steps, total_steps - general_steps]
        schedule = LambdaLR(optimizer, lambda step: _rate(step, stages, settings.warmup))
        self.model, self.optimizer, self.schedule = self.accelerator.prepare(model, optimizer, schedule)
        prepared = dict(zip(wide, map(self.accelerator.prepare, wide), strict=True))
        self.projections = [prepared.get(projection, projection) for projection in projections]
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def predictions(
        self, instances: Sequence[Instance], layers: Sequence[int] = (), pooling: Pooling = "cls"
    ) -> Predictions:
        """With gradient, dropout on: logits, and the pooled hidden states of these layers (0: embeddings).

        Raises DivergedError if the logits are not finite, as `scores` and `survey` do.
        """
        self.model.train()
        batch = self._collate(instances)
        output = self.model(**batch, output_hidden_states=bool(layers))
        states = {layer: pooled(output.hidden_states[layer], batch, pooling) for layer in layers}
        return Predictions(_finite(output.logits), states)

    def insides(self, instances: Sequence[Instance], insight: Insight) -> Insides:
        """With gradient: whole hidden states and attentions of the matched layers.

        Without dropout, which would be in what transformers gives as attentions.
        """
        self.model.eval()
        batch, wanted = self._collate(instances), bool(insight.attentions)
        bare = self.accelerator.unwrap_model(self.model)
        with telling_attentions(bare) if wanted else nullcontext():
            output = self.model(**batch, output_hidden_states=True, output_attentions=wanted)
        mask = batch["attention_mask"].bool()
        states = torch.stack([output.hidden_states[layer] for _, layer in insight.layers], dim=1)
        weights = [output.attentions[layer - 1] for _, layer in insight.attentions]
        n, tokens = mask.shape
        attentions = torch.stack(weights, dim=1) if wanted else states.new_empty(n, 0, 0, tokens, tokens)
        return Insides(_finite(states), attentions, mask)

    @torch.inference_mode()
    def scores(self, instances: Sequence[Instance], *, dropout: bool) -> Tensor:
        """Predictions to measure doubt by, without gradient: [n, C]."""
        self.model.train(dropout)
        logits: Tensor = self.model(**self._collate(instances)).logits
        return _finite(logits)

    def survey(self, instances: Sequence[Instance]) -> Tensor:
        """Predictions about any number of instances, to measure doubt by: [n, C] on the CPU."""
        return _finite(predict(self.model, self.tokenizer, instances, *self._sizes))

    def vectors(self, instances: Sequence[Instance]) -> Tensor:
        """The mean of each instance's last hidden states: [n, h] on the CPU."""
        return vectors(self.model, self.tokenizer, instances, *self._sizes, pooling="mean")

    @property
    def _sizes(self) -> tuple[int, int, torch.device]:
        return self.settings.max_length, self.settings.batch_size, self.accelerator.device

    def update(self, loss: Tensor | None) -> None:
        """One step down the loss. Without a loss (nothing answered, nothing labelled) only time passes."""
        if loss is not None:
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(self._parameters, self.settings.max_grad_norm)
        self.optimizer.step()  # does nothing without gradients; left out, the schedule would warn of it
        self.optimizer.zero_grad()
        self.schedule.step()

    @property
    def learning_rate(self) -> float:
        return float(self.schedule.get_last_lr()[0])

    def _collate(self, instances: Sequence[Instance]) -> BatchEncoding:
        return collate(self.tokenizer, instances, self.settings.max_length, self.accelerator.device)


def _finite(outputs: Tensor) -> Tensor:
    if not outputs.isfinite().all():
        raise DivergedError
    return outputs


def _keep_large_blocks() -> None:
    """Lets the C library reuse freed blocks of any size.

    glibc returns those above 32 MB to the system, such as the gradient of MiniLM's embeddings (47 MB), and
    gets them back each step page by page: 13,000 page faults, a twentieth of a step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:  # not in every C library
        for option in (-3, -1):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
            mallopt(option, 2**31 - 1)


def _rate(step: int, stages: Sequence[int], warmup: float) -> float:
    """Share of the highest rate: in each stage, of so many steps, a linear rise and then a linear fall."""
    first, last = stages
    length = first if step < first else last
    place = step if step < first else step - first
    rise = round(warmup * length)
    if place < rise:
        return place / max(1, rise)
    return max(0.0, (length - place) / max(1, length - rise))
