"""TinyBERT's general stage: whole hidden states and attentions of matched layers, without labels.

Attentions are probabilities, what transformers gives for any architecture; TinyBERT itself compares the
scores before the softmax. Token by token means the same tokens on both sides: one vocabulary, one maximum
length.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from student_trainer.config import DistillSettings
from student_trainer.errors import UserError
from student_trainer.layers import Projection, pairs
from student_trainer.losses import attention_loss, token_loss
from student_trainer.student import Anatomy
from teacher_api.messages import Description, Outputs, Want


@dataclass(frozen=True)
class Insight:
    """Matched layers, (teacher's, student's): of hidden states (0: embeddings), and of attentions."""

    layers: Sequence[tuple[int, int]]
    attentions: Sequence[tuple[int, int]]

    @classmethod
    def between(cls, teacher: Description, student: Anatomy, settings: DistillSettings) -> "Insight":
        """Raises UserError for a student whose tokens, heads or layers are not such as to be compared."""
        if student.vocabulary_hash != teacher.vocabulary_hash:
            raise UserError(
                f"general_epochs: {teacher.name} and the student have different vocabularies, so their "
                "tokens cannot be compared; start from a student of the teacher's tokenizer, or set 0"
            )
        if student.max_length != teacher.max_length:
            raise UserError(
                f"max_length: {student.max_length}; the general stage compares token by token, and "
                f"{teacher.name} cuts at {teacher.max_length}; set both to the same"
            )
        layers = pairs(settings.layer_map, teacher.layers, student.layers)
        if not settings.general_attentions:
            return cls(layers, ())
        if student.heads != teacher.attention_heads:
            raise UserError(
                f"general_attentions: {teacher.name} gives {teacher.attention_heads} heads, the student has "
                f"{student.heads}; take a student with as many, or switch general_attentions off"
            )
        return cls(layers, [pair for pair in layers if 0 not in pair])

    def want(self, settings: DistillSettings) -> Want:
        """The logits come along: they cost nothing more, and the next stage finds them kept."""
        layers, attentions = (
            tuple(sorted({layer for layer, _ in matched})) for matched in (self.layers, self.attentions)
        )
        return Want(True, layers, "none", settings.hidden_dtype, attentions)


@dataclass(frozen=True)
class Insides:
    """Of n instances, padded to T tokens: states of L matched layers, attentions of A of them.

    Attributes:
        states: [n, L, T, h].
        attentions: [n, A, H, T, T]; A may be 0.
        mask: whether a token is real [n, T].
    """

    states: Tensor
    attentions: Tensor
    mask: Tensor

    def __getitem__(self, rows: Sequence[int]) -> "Insides":
        chosen = list(rows)
        return Insides(self.states[chosen], self.attentions[chosen], self.mask[chosen])

    def cut(self, tokens: int) -> "Insides":
        """Padded to so many tokens only: no instance has more."""
        return Insides(
            self.states[:, :, :tokens], self.attentions[..., :tokens, :tokens], self.mask[:, :tokens]
        )

    @classmethod
    def of(cls, answers: Sequence[Outputs], insight: Insight, tokens: Sequence[int]) -> "Insides":
        """A teacher's, padded to the longest of `tokens`: how many the student has of each instance.

        Raises:
            UserError: the teacher has another number of tokens somewhere.
        """
        theirs = [0 if one.mask is None else len(one.mask) for one in answers]
        for ours, length in zip(tokens, theirs, strict=True):
            if ours != length:
                raise UserError(
                    f"general_epochs: of one text the teacher has {length} tokens and the student {ours}; "
                    "start from a student of the teacher's tokenizer, or set 0"
                )
        longest = max(tokens)
        states = [[one.hidden[layer] for layer, _ in insight.layers] for one in answers]
        attentions = [[one.attentions[layer] for layer, _ in insight.attentions] for one in answers]
        return cls(
            _stacked([np.stack(one) for one in states], (1,), longest),
            _stacked([np.stack(one) for one in attentions], (2, 3), longest)
            if insight.attentions
            else torch.empty(len(answers), 0, 0, longest, longest),
            torch.arange(longest) < torch.tensor(theirs)[:, None],
        )

    def to(self, device: torch.device) -> "Insides":
        return Insides(self.states.to(device), self.attentions.to(device), self.mask.to(device))


def insides_loss(student: Insides, teacher: Insides, projection: Projection) -> Tensor:
    """The mean over instances: a scalar. The projection leads from the student's width to the teacher's."""
    n, tokens = student.mask.shape
    flat = student.states.transpose(1, 2).flatten(0, 1)  # [n·T, L, h_s]
    states = projection(flat).unflatten(0, (n, tokens)).transpose(1, 2)
    loss = token_loss(states, teacher.states, teacher.mask)
    if teacher.attentions.shape[1]:
        loss = loss + attention_loss(student.attentions, teacher.attentions, teacher.mask)
    return loss.mean()


def _stacked(arrays: Sequence[np.ndarray], axes: Sequence[int], longest: int) -> Tensor:
    """One tensor, float32; its tokens, on these axes of an array, filled up with zeros."""
    filled = []
    for array in arrays:
        room = [(0, longest - size if axis in axes else 0) for axis, size in enumerate(array.shape)]
        filled.append(np.pad(array.astype(np.float32), room))
    return torch.from_numpy(np.stack(filled))
