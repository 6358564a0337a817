"""The order of an epoch, and a padded batch."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from student_trainer.data import collate, order
from teacher_api.messages import Instance

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d"]


@pytest.fixture
def tokenizer(tmp_path: Path) -> PreTrainedTokenizerBase:
    """Read from a tokenizer.json that pads every row to 12 and cuts it at 3, as published ones do to 128."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    words.enable_padding(length=12)
    words.enable_truncation(3)
    made = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    made.save_pretrained(tmp_path)
    words.save(str(tmp_path / "tokenizer.json"))
    return AutoTokenizer.from_pretrained(tmp_path)


def test_a_batch_is_as_long_as_its_longest_row(tokenizer: PreTrainedTokenizerBase) -> None:
    batch = collate(tokenizer, [Instance("a b"), Instance("c")], max_length=8)
    assert batch["input_ids"].tolist() == [[2, 4, 5, 3], [2, 6, 3, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]


def test_pairs_are_cut_at_their_longer_text(tokenizer: PreTrainedTokenizerBase) -> None:
    batch = collate(tokenizer, [Instance("a b c d", "c"), Instance("a", "b")], max_length=6)
    assert batch["input_ids"].tolist() == [[2, 4, 5, 3, 6, 3], [2, 4, 3, 5, 3, 0]]


def test_what_a_student_cannot_read_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ValueError, match="token ids"):
        collate(tokenizer, [Instance(token_ids=(1, 2))], max_length=8)
    with pytest.raises(ValueError, match="not both"):
        collate(tokenizer, [Instance("a"), Instance("a", "b")], max_length=8)


def test_order_is_a_pure_permutation() -> None:
    state = torch.get_rng_state()
    orders = {(seed, epoch): tuple(order(50, seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(set(orders.values())) == 16  # (0, 1) and (1, 0) are different too
    assert all(sorted(places) == list(range(50)) for places in orders.values())
    assert tuple(order(50, 3, 2)) == orders[3, 2]
    assert torch.equal(torch.get_rng_state(), state)
    assert order(0, 0, 0) == []
