"""How unsure a student is of each instance (§3.2.1, eq. 5 and 7-9): larger is more uncertain.

Every score maps logits [instances, classes] to [instances], without gradient: a student that could
lower its loss by changing its own doubt would learn to be sure, not to be right.
"""

from collections.abc import Callable
from math import log

import torch
from torch import Tensor


def entropy(logits: Tensor) -> Tensor:
    """Entropy of the predicted distribution, in nats (eq. 5, 7). [n, C] -> [n], 0 to ln C."""
    terms: Tensor = torch.special.entr(_probabilities(logits))  # entr(0) is 0, not NaN
    return terms.sum(dim=-1)


def margin(logits: Tensor) -> Tensor:
    """Minus the gap between the two most probable classes (eq. 8). [n, C] -> [n], -1 to 0.

    The paper prints the gap itself; its top N·r would be the instances the student is surest of.
    """
    best, second = _probabilities(logits).topk(2, dim=-1).values.unbind(dim=-1)
    return second - best


def least_confidence(logits: Tensor) -> Tensor:
    """One minus the probability of the predicted class (eq. 9). [n, C] -> [n], 0 to 1 - 1/C."""
    return 1 - _probabilities(logits).amax(dim=-1)


SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "entropy": entropy,
    "margin": margin,
    "lc": least_confidence,
}


def normalised(entropy: Tensor, classes: int) -> Tensor:
    """u/U of eq. 6 and 13, with U = ln C, the entropy of no idea at all. [n] in nats -> [n], 0 to 1.

    Float32, without gradient, and clamped: rounding would make a weight of 1 - u/U negative.

    Raises:
        ValueError: fewer than two classes.
    """
    if classes < 2:
        raise ValueError(f"classes: {classes} leaves nothing to be unsure about; give two classes or more")
    return (entropy.detach().float() / log(classes)).clamp(0, 1)


def _probabilities(logits: Tensor) -> Tensor:
    """Softmax in float32: half precision rounds small probabilities to zero.

    Raises:
        ValueError: a single class (regression) has no distribution to be unsure about.
    """
    if logits.shape[-1] < 2:
        raise ValueError("uncertainty needs two classes or more; a model with one output is a regression")
    return logits.detach().float().softmax(dim=-1)
