"""Scores of doubt against numbers worked out by hand, and what must hold for any logits."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from student_trainer.dynamics.selection import select
from student_trainer.dynamics.uncertainty import SCORES

# Rows of probabilities, from sure to uniform; ln p as logits gives them back.
PROBABILITIES = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [1 / 3, 1 / 3, 1 / 3]])
BY_HAND = {
    # -(.7 ln .7 + .2 ln .2 + .1 ln .1), -(.5 ln .5 + .4 ln .4 + .1 ln .1), ln 3
    "entropy": [0.801819, 0.943348, 1.098612],
    "margin": [-0.5, -0.1, 0.0],
    "lc": [0.3, 0.5, 2 / 3],
}

logit_rows = arrays(
    "float32", st.tuples(st.integers(1, 12), st.integers(2, 6)), elements=st.floats(-30, 30, width=32)
)
two_class_rows = arrays(
    "float32", st.tuples(st.integers(1, 12), st.just(2)), elements=st.floats(-5, 5, width=16)
)


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_those_worked_out_by_hand(name: str) -> None:
    scores = SCORES[name](PROBABILITIES.log())
    assert scores.tolist() == pytest.approx(BY_HAND[name], abs=1e-6)


@pytest.mark.parametrize(("classes", "nats"), [(2, 0.693147), (3, 1.098612), (5, 1.609438)])
def test_uniform_prediction_has_the_entropy_ln_c(classes: int, nats: float) -> None:
    assert SCORES["entropy"](torch.zeros(1, classes)).item() == pytest.approx(nats, abs=1e-6)


@pytest.mark.parametrize("name", SCORES)
@given(logits=logit_rows)
@settings(max_examples=50, deadline=None)
def test_a_permuted_batch_has_permuted_scores(name: str, logits) -> None:
    logits = torch.from_numpy(logits)
    order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(SCORES[name](logits)[order], SCORES[name](logits[order]))


@given(logits=two_class_rows)
@settings(max_examples=200, deadline=None)
def test_with_two_classes_all_scores_rank_alike(logits) -> None:
    logits = torch.from_numpy(logits)
    gap = (logits[:, 0] - logits[:, 1]).abs()
    expected = gap.sort().values  # the smaller the gap, the more doubt
    for score in SCORES.values():
        ranked = gap[select(score(logits), len(logits))]
        torch.testing.assert_close(ranked, expected, atol=5e-3, rtol=0)  # ties of float32 scores


@pytest.mark.parametrize("name", SCORES)
def test_a_certain_prediction_has_the_least_doubt_and_no_nan(name: str) -> None:
    logits = torch.tensor([[1e4, 0.0, -1e4], [0.0, 0.0, 0.0]], dtype=torch.float16)
    sure, unsure = SCORES[name](logits).tolist()
    assert math.isfinite(sure)
    assert sure < unsure


@pytest.mark.parametrize("name", SCORES)
def test_doubt_has_no_gradient(name: str) -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    assert not SCORES[name](logits).requires_grad


@pytest.mark.parametrize("name", SCORES)
def test_a_regression_has_no_doubt(name: str) -> None:
    with pytest.raises(ValueError, match="two classes"):
        SCORES[name](torch.zeros(4, 1))
