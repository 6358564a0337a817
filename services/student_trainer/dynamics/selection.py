"""Which instances of a batch are asked about (§3.2): the k = N·r most uncertain, or random ones."""

from fractions import Fraction
from math import floor
from typing import Literal

import torch
from torch import Tensor

Strategy = Literal["all", "random", "entropy", "margin", "lc"]
Rounding = Literal["nearest", "floor", "spread"]


def how_many(n: int, ratio: float, rounding: Rounding = "nearest", step: int = 0) -> int:
    """k of n: at least one, half rounded up; `floor` is the released code's choice, and may be zero.

    `spread` carries what is left over to the next step, so that a hundredth of batches of 32 is one
    question in about three steps, and the ratio holds over the run however small it is.

    The ratio is taken as the decimal it was written as: .29 of 100 is 29, in binary it would be 28.

    Raises:
        ValueError: the ratio is not in (0, 1].
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio must be in (0, 1], not {ratio}")
    exact = Fraction(str(ratio)) * n
    if rounding == "spread":
        return floor(exact * (step + 1)) - floor(exact * step)
    return floor(exact) if rounding == "floor" else max(1, floor(exact + Fraction(1, 2)))


def select(doubt: Tensor, k: int) -> Tensor:
    """Positions of the k most uncertain instances, the most uncertain first. [n] -> [k].

    Equal doubts keep the order of the batch, so that the same batch always gives the same choice.
    """
    return doubt.argsort(descending=True, stable=True)[:k]


def random_doubt(n: int, generator: torch.Generator) -> Tensor:
    """Uniform noise in place of doubt: the control that every strategy has to beat. -> [n]."""
    return torch.rand(n, generator=generator)


def generator_for(seed: int, step: int) -> torch.Generator:
    """The random choice of one step depends on nothing but the run's seed and the step.

    So a resumed run, or one that plans ahead, draws the same noise as an unbroken one.
    """
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
