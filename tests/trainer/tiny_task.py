"""A task that a tiny model learns in seconds, and tiny BERTs: key words decide the class."""

import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

LABELS = ("negative", "neutral", "positive")
KEYS = {
    "negative": ("awful", "dull", "bad", "poor"),
    "neutral": ("fair", "plain", "usual", "even"),
    "positive": ("great", "fine", "good", "rare"),
}
FILLERS = [f"{first}{second}" for first in "abcdefgh" for second in ("a", "en", "ist", "or", "um")]
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TRAIN, VALIDATION = 192, 60


def rows(number: int, seed: str) -> list[dict[str, str]]:
    """Texts of 5 to 9 words, two of them telling the class; the classes take turns."""
    dice = random.Random(seed)
    made = []
    for index in range(number):
        label = LABELS[index % len(LABELS)]
        words = dice.choices(FILLERS, k=dice.randint(3, 7)) + dice.choices(KEYS[label], k=2)
        dice.shuffle(words)
        made.append({"text": " ".join(words), "label": label})
    return made


def write_task(folder: Path, train: list[dict[str, str]], validation: list[dict[str, str]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, split in (("train", train), ("validation", validation)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in split))
    return folder


def save_bert(
    folder: Path, seed: int, layers: int, labels: tuple[str, ...] = LABELS, hidden: int = 32, heads: int = 2
) -> Path:
    """Random weights, this task's words."""
    tokenizer = _tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.1,
        id2label=dict(enumerate(labels)),
        label2id={name: number for number, name in enumerate(labels)},
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_reordered(source: Path, folder: Path, order: list[int]) -> Path:
    """The same classifier with its classes in another order."""
    model = BertForSequenceClassification.from_pretrained(source)
    names = [model.config.id2label[index] for index in order]
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: index for index, name in enumerate(names)}
    for weights in (model.classifier.weight, model.classifier.bias):
        weights.data = weights.data[order].clone()
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    words = [*SPECIAL, *FILLERS, *(word for keys in KEYS.values() for word in keys)]
    vocabulary = {word: number for number, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    pad, unknown, cls, sep, mask = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=pad,
        unk_token=unknown,
        cls_token=cls,
        sep_token=sep,
        mask_token=mask,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
