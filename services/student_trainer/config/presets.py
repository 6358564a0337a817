"""Choices that belong together: a setting that is given wins over its preset.

Everything that a preset does not name has the default, which is the paper's recipe (appendix A, D).
"""

from typing import Any, Literal

Preset = Literal["paper", "reference", "tinybert", "dynamic"]

PRESETS: dict[str, dict[str, Any]] = {
    # What the paper's text says.
    "paper": {
        "label_loss": "selected",  # eq. 10: forward and backward on the selected only
        "divergence": "reverse-kl",  # eq. 1 prints KL(student ‖ teacher)
        "rounding": "nearest",  # N·r
        "adoption": "soft",  # eq. 6, of each instance
        "layer_map": "skip",  # §3.3.2: {2, 4, 6, 8, 10}
        "pooling": "cls",  # eq. 12
    },
    # What the released code does, but for its faults (positions that a padded token takes, two KD terms
    # where hard adoption asks one teacher, a selection that may be empty).
    "reference": {
        "label_loss": "all",
        "divergence": "kl",  # KL(teacher ‖ student)·τ²
        "rounding": "floor",
        "score_dropout": True,  # it scores by the forward that carries the gradient
        "adoption": "soft-batch",  # eq. 6 of the batch's mean
        "layer_map": "uniform",  # {0, 2, .., 12}: the embeddings and the last layer as well
        "pooling": "mean",  # it compares all tokens, padding included; their mean is the nearest
    },
    # TinyBERT's two stages, as the paper runs them on augmented data (appendix D).
    "tinybert": {
        "general_epochs": 10,
        "epochs": 3,
        "layer_map": "uniform",  # the embeddings and the last layer are matched as well
        "hidden_dtype": "float16",  # whole states and attentions are large
    },
    # What was best for the money so far without labels (docs/log.md): replay is sure, doubt in the batch a
    # little better than chance where few questions are asked. Hidden states gained nothing, and stay out.
    # Beside gold labels on all rows none of it gained anything on TREC-6.
    "dynamic": {
        "strategy": "entropy",
        "replay": True,
        "ratio_of": "rows",
        "rounding": "spread",
        "adoption": "hard",  # scores as the ensemble and soft do, for two thirds of their distinct questions
    },
}


def applied(given: dict[str, Any], teachers: int) -> dict[str, Any]:
    """The preset's choices under what is given; of adoption only where there is a choice of teachers."""
    chosen = PRESETS.get(str(given.get("preset")), {})
    return {name: value for name, value in chosen.items() if name != "adoption" or teachers > 1} | given
