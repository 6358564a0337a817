"""What a run has been told: an answer that is paid for can be learnt from again at no charge."""

from collections.abc import Sequence

import torch
from torch import Tensor

ALL = slice(None)


class Memory:
    """Of each training row the weight of each teacher that has answered about it: all zero where none has.

    The answers themselves are read back from disk, so this is all that a checkpoint has to hold of them.

    Attributes:
        weights: [rows, T].
        temperature: that fitted the student's predictions about the rows asked last, not yet learnt from.
    """

    def __init__(self, rows: int, teachers: int) -> None:
        self.weights = torch.zeros(rows, teachers)
        self.temperature = 1.0

    def remember(self, rows: Sequence[int], weights: Tensor) -> None:
        """That these rows were answered, under the weights [k, T] that adoption gave."""
        self.weights[list(rows)] = weights

    def known(self, rows: Sequence[int] | slice = ALL) -> Tensor:
        """Whether each of these rows has been answered about: [rows]."""
        return self.weights[rows].any(dim=1)

    def state_dict(self) -> dict[str, Tensor]:
        return {"weights": self.weights, "temperature": torch.tensor(self.temperature)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.weights, self.temperature = state["weights"], float(state["temperature"])
