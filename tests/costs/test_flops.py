"""The forward formula against torch's own counter, and every figure of the paper's cost columns."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
)

from student_trainer.costs.flops import PerInstance, Shape, backward, forward

BERT = Shape(layers=12, hidden=768, intermediate=3072, classes=2)
BERT_6 = Shape(layers=6, hidden=768, intermediate=3072, classes=2)
TINY_4 = Shape(layers=4, hidden=312, intermediate=1200, classes=2)
BASE = PerInstance(11.3, 11.3, 22.5)
TINY = PerInstance(1.2, 1.2, 22.5)


# Eager attention: its products are plain matrix products, which the counter sees; it has no formula for
# the fused attention kernel of CPUs.
def bert() -> PreTrainedModel:
    config = BertConfig(
        num_hidden_layers=3, hidden_size=96, num_attention_heads=4, intermediate_size=384, vocab_size=50
    )
    config.num_labels = 5
    config._attn_implementation = "eager"
    return BertForSequenceClassification(config)


def distilbert() -> PreTrainedModel:
    config = DistilBertConfig(n_layers=2, dim=64, n_heads=4, hidden_dim=160, vocab_size=50)
    config.num_labels = 3
    config._attn_implementation = "eager"
    return DistilBertForSequenceClassification(config)


@pytest.mark.parametrize("make", [bert, distilbert])
@pytest.mark.parametrize("lengths", [[17], [40, 40, 40]])
def test_the_formula_is_what_torch_counts(make, lengths: list[int]) -> None:
    model = make()
    ids = torch.randint(50, (len(lengths), lengths[0]))
    with FlopCounterMode(display=False) as counter:
        logits = model(input_ids=ids).logits
    shape = Shape.of_config(model.config)
    assert forward(shape, lengths) == counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        logits.sum().backward()
    assert backward(shape, lengths) == counter.get_total_flops()


def test_the_papers_models_at_128_tokens() -> None:
    assert forward(BERT, [128]) == pytest.approx(22.5e9, rel=0.01)
    assert forward(BERT_6, [128]) == pytest.approx(11.3e9, rel=0.015)
    assert forward(TINY_4, [128]) == pytest.approx(1.2e9, rel=0.05)


def test_lengths_add_up_and_attention_grows_with_their_square() -> None:
    assert forward(BERT, [10, 60, 128]) == sum(forward(BERT, [n]) for n in (10, 60, 128))
    assert forward(BERT, []) == 0
    assert forward(BERT, [128] * 2) < forward(BERT, [256])
    no_pooler = Shape(12, 768, 3072, 2, pooler=False)
    assert forward(BERT, [7]) - forward(no_pooler, [7]) == 2 * 768**2


def test_no_overflow_on_large_data() -> None:
    assert forward(BERT, [128] * 1_000_000) == 1_000_000 * forward(BERT, [128])


def test_backward_by_the_papers_convention() -> None:
    assert backward(BERT_6, [128], "paper") == forward(BERT_6, [128])
    assert backward(BERT_6, [128]) == 2 * forward(BERT_6, [128])


@pytest.mark.parametrize(
    ("costs", "r", "full", "eq10", "backward_on_all", "two_pass", "random"),
    [
        (BASE, 0.5, 45.1, 28.2, 33.85, 33.85, 22.55),
        (BASE, 0.1, 45.1, 14.68, 24.85, 15.81, 4.51),
        (TINY, 0.1, 24.9, 3.57, 4.65, 3.69, 2.49),
    ],
)
def test_the_papers_columns(
    costs: PerInstance,
    r: float,
    full: float,
    eq10: float,
    backward_on_all: float,
    two_pass: float,
    random: float,
) -> None:
    assert costs.full() == pytest.approx(full)
    assert costs.eq10(r) == pytest.approx(eq10)
    assert costs.backward_on_all(r) == pytest.approx(backward_on_all)
    assert costs.two_pass_on_all(r) == pytest.approx(backward_on_all + costs.student_forward)
    assert costs.two_pass(r) == pytest.approx(two_pass)
    assert costs.random(r) == pytest.approx(random)
