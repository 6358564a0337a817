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
        turns: how often each row was learnt from: [rows].
        temperature: that fitted the student's predictions about the rows asked last, not yet learnt from.
    """

    def __init__(self, rows: int, teachers: int) -> None:
        self.weights = torch.zeros(rows, teachers)
        self.turns = torch.zeros(rows, dtype=torch.long)
        self.temperature = 1.0

    def remember(self, rows: Sequence[int], weights: Tensor) -> None:
        """That these rows were answered, under the weights [k, T] that adoption gave.

        A new one starts level with those that had the fewest turns, or it would fill the next batches.
        """
        places, known = torch.tensor(rows, dtype=torch.long), self.known()
        if known.any():
            self.turns[places[~known[places]]] = self.turns[known].min()
        self.weights[places] = weights

    def learnt(self, rows: Sequence[int]) -> None:
        """That these rows had a turn."""
        self.turns[list(rows)] += 1

    def next(self, count: int, lots: torch.Generator) -> list[int]:
        """Rows to learn from again: those known that had the fewest turns, by lot among equals.

        So all have had a turn before one has another, as in epochs.
        """
        rows = self.known().nonzero().flatten()
        drawn = torch.rand(len(rows), generator=lots, dtype=torch.double)  # below 1: among equals only
        return rows[(self.turns[rows] + drawn).argsort()[:count]].tolist()

    def known(self, rows: Sequence[int] | slice = ALL) -> Tensor:
        """Whether each of these rows has been answered about: [rows]."""
        return self.weights[rows].any(dim=1)

    def state_dict(self) -> dict[str, Tensor]:
        return {"weights": self.weights, "turns": self.turns, "temperature": torch.tensor(self.temperature)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.weights, self.temperature = state["weights"], float(state["temperature"])
        self.turns = state.get("turns", self.turns)  # a run that an earlier version began has none
