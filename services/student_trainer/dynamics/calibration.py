"""A student that is too sure, or not sure enough, ranks its doubts among more than two classes wrongly.

Temperature scaling (Guo et al. 2017, On Calibration of Modern Neural Networks) mends that with one number.
"""

import torch
from torch import Tensor

TEMPERATURES = torch.logspace(-1, 1, 81)  # a tenth to ten, 6 % apart


def fitting_temperature(logits: Tensor, targets: Tensor) -> float:
    """The τ at which softmax(logits / τ) is nearest to the targets, by cross-entropy; 1 of no instance.

    Args:
        logits: of the student, before it has learnt from the targets [n, C].
        targets: probabilities [n, C].
    """
    if not len(logits):
        return 1.0
    scaled = logits.detach().float() / TEMPERATURES[:, None, None]
    losses = -(targets * scaled.log_softmax(dim=-1)).sum(dim=-1).mean(dim=-1)
    return float(TEMPERATURES[losses.argmin()])
