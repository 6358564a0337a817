"""FLOPs of a transformer encoder by formula, and the paper's cost columns (Tables 2 and 4).

A multiplication with its addition counts 2. Counted are the matrix products; lookups, normalisation,
softmax and activations are left out (below 1 % at these sizes).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

Convention = Literal["real", "paper"]
BACKWARD = {"real": 2, "paper": 1}  # forwards that a backward pass costs; the paper sets B_s = F_s


@dataclass(frozen=True)
class Shape:
    """Sizes of an encoder with a classification head; `pooler`: a square layer before the classifier."""

    layers: int
    hidden: int
    intermediate: int
    classes: int
    pooler: bool = True

    @classmethod
    def of_config(cls, config: Any) -> Self:
        """From a transformers configuration; DistilBERT has its own word for `intermediate_size`."""
        wide = getattr(config, "intermediate_size", None) or config.hidden_dim
        return cls(config.num_hidden_layers, config.hidden_size, wide, config.num_labels)


def forward(shape: Shape, lengths: Iterable[int]) -> int:
    """FLOPs of one forward pass over instances of so many tokens each, padding included if it is computed."""
    n = np.fromiter(lengths, dtype=np.int64)
    tokens, pairs, instances = int(n.sum()), int((n * n).sum()), len(n)
    h = shape.hidden
    projections = tokens * 4 * h * h  # queries, keys, values, output
    attention = pairs * 2 * h  # scores, mix
    feed_forward = tokens * 2 * h * shape.intermediate
    head = instances * h * (h * shape.pooler + shape.classes)
    return 2 * (shape.layers * (projections + attention + feed_forward) + head)


def backward(shape: Shape, lengths: Iterable[int], convention: Convention = "real") -> int:
    """FLOPs of the backward pass: gradients of inputs and of weights, or the paper's B_s = F_s."""
    return BACKWARD[convention] * forward(shape, lengths)


@dataclass(frozen=True)
class PerInstance:
    """Costs of one instance: F_s, B_s, F_t. The columns are per instance of the data, r = share asked."""

    student_forward: float
    student_backward: float
    teacher_forward: float

    def full(self) -> float:
        """F_s + B_s + F_t: the teacher is asked about all."""
        return self.student_forward + self.student_backward + self.teacher_forward

    def eq10(self, r: float) -> float:
        """F_s + r(B_s + F_t): eq. 10, Table 2. No eager framework reaches it with one forward."""
        return self.student_forward + r * (self.student_backward + self.teacher_forward)

    def backward_on_all(self, r: float) -> float:
        """F_s + B_s + r·F_t: label loss on all, Table 4."""
        return self.student_forward + self.student_backward + r * self.teacher_forward

    def two_pass_on_all(self, r: float) -> float:
        """2·F_s + B_s + r·F_t: the same behind a score pass of its own, as dropout-free scores need."""
        return self.student_forward + self.backward_on_all(r)

    def two_pass(self, r: float) -> float:
        """F_s + r(F_s + B_s + F_t): a score pass without gradient, then the asked."""
        return self.student_forward + r * self.full()

    def in_rounds(self, r: float, scored: float) -> float:
        """(1 + scored)·F_s + B_s + r·F_t: labels, or answers kept, on all; `scored` passes an instance seen
        over what might be asked about."""
        return scored * self.student_forward + self.backward_on_all(r)

    def random(self, r: float) -> float:
        """r(F_s + B_s + F_t): no score pass."""
        return r * self.full()
