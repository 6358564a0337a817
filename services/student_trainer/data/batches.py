"""The order of an epoch's rows, and rows as a padded batch of tokens."""

import hashlib
from collections.abc import Sequence

import torch
from transformers import BatchEncoding, PreTrainedTokenizerBase

from teacher_api.messages import Instance


def order(n: int, seed: int, epoch: int) -> list[int]:
    """The rows 0..n-1 in the order of one epoch.

    A pure function, apart from every other random number of a run: a position in a run is one integer,
    epoch * n + place, and nothing has to be replayed to return to it.
    """
    mixed = hashlib.sha256(f"{seed} {epoch}".encode()).digest()  # near seeds and epochs: far generators
    generator = torch.Generator().manual_seed(int.from_bytes(mixed[:8], "little"))
    return torch.randperm(n, generator=generator).tolist()


def collate(
    tokenizer: PreTrainedTokenizerBase,
    instances: Sequence[Instance],
    max_length: int,
    device: torch.device | str = "cpu",
) -> BatchEncoding:
    """Tokens [instances, longest of them], cut at max_length; of a pair, the longer text is cut first.

    Padding and truncation are always said: a tokenizer.json may carry its own, such as 128 for every row.
    Raises ValueError for token ids, which belong to a teacher's vocabulary, and for pairs among single texts.
    """
    pairs = [instance.text_pair for instance in instances]
    if any(instance.token_ids is not None for instance in instances):
        raise ValueError("a student tokenises texts itself: token ids are of the teacher's vocabulary")
    if None in pairs and any(pair is not None for pair in pairs):
        raise ValueError("a batch holds single texts or pairs, not both")
    encoding: BatchEncoding = tokenizer(
        [instance.text for instance in instances],
        None if None in pairs else pairs,
        padding="longest",
        truncation="longest_first",
        max_length=max_length,
        return_tensors="pt",
    )
    return encoding.to(device)
