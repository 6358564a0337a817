"""The student: a pretrained checkpoint, whole or with some of its layers, under a classification head."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import PreTrainedTokenizerBase as Tokenizer
from transformers.utils import logging

from student_trainer.data.names import plain
from student_trainer.errors import UserError
from teacher_api.identity import vocabulary_hash


class StudentError(UserError):
    """The student's checkpoint or its choice of layers cannot be used."""


def load(
    source: str, labels: tuple[str, ...], layers: int | list[int] | None, seed: int
) -> tuple[PreTrainedModel, Tokenizer]:
    """A model that classifies into `labels`, and its tokenizer.

    A head that the checkpoint already has for as many classes is kept; any other is drawn fresh from
    the seed. The paper starts from the first layers of the pretrained encoder (appendix A).

    Raises:
        StudentError: no such checkpoint, a layer that it does not have, or a head for the same classes in
            another order.
    """
    torch.manual_seed(seed)
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it reports the fresh head of every student as a fault
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        config = AutoConfig.from_pretrained(source)
        model = AutoModelForSequenceClassification.from_pretrained(
            source,
            num_labels=len(labels),
            id2label=dict(enumerate(labels)),
            label2id={name: index for index, name in enumerate(labels)},
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise StudentError(
            f"student: {source!r} cannot be loaded; give a folder with config.json, model.safetensors "
            f"and a tokenizer, or a hub name ({' '.join(str(error).split())})"
        ) from None
    refuse_other_order(source, config, labels)
    if layers is not None:
        keep_layers(model, layers)
    return model, tokenizer


def refuse_other_order(source: str, config: PreTrainedConfig, labels: tuple[str, ...]) -> None:
    """Raises StudentError for a head whose classes are the data's in another order: each would start as
    another one."""
    by_class: dict[Any, str] = dict(config.id2label or {})
    named, wanted = [by_class[index] for index in sorted(by_class)], list(labels)
    head, data = ([plain(str(name)) for name in names] for names in (named, wanted))
    if head != data and sorted(head) == sorted(data):
        raise StudentError(
            f"student: the head of {source!r} has its classes in the order {named}, the data in "
            f"{wanted}; set label_names to the head's order, or choose a checkpoint without a head"
        )


def refuse_too_long(model: PreTrainedModel, tokenizer: Tokenizer, max_length: int) -> None:
    """Raises StudentError if inputs of so many tokens are more than the student has positions for."""
    most = min(tokenizer.model_max_length, positions(model))
    if max_length > most:
        raise StudentError(
            f"max_length: {max_length} tokens are more than the student's {most} positions; "
            f"set {most} or less: longer texts are cut"
        )


def positions(model: PreTrainedModel) -> float:
    """Of the table of absolute positions, where there is one; RoBERTa's begins behind the padding id."""
    for name, table in model.named_modules():
        if name.endswith(".position_embeddings") and isinstance(table, nn.Embedding):
            return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
    return math.inf


@dataclass(frozen=True)
class Anatomy:
    """What a teacher's insides have to fit."""

    layers: int
    heads: int
    width: int
    vocabulary_hash: str
    max_length: int

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: Tokenizer, max_length: int) -> "Anatomy":
        config = model.config
        return cls(
            config.num_hidden_layers,
            config.num_attention_heads,
            config.hidden_size,
            vocabulary_hash(tokenizer.get_vocab()),
            max_length,
        )


def keep_layers(model: PreTrainedModel, layers: int | list[int]) -> None:
    """Keeps the first so many layers of the encoder, or these, in this order; 0 is the first. Changes the
    model in place.

    Raises:
        StudentError: no layer is named, one twice, or one that the encoder does not have.
    """
    total = model.config.num_hidden_layers
    kept = list(range(layers)) if isinstance(layers, int) else layers
    if not kept or not all(0 <= layer < total for layer in kept) or len(set(kept)) < len(kept):
        raise StudentError(
            f"student_layers: {layers}, and the checkpoint has {total} layers; give a number of 1 to "
            f"{total}, or layers of 0 to {total - 1}, each once"
        )
    parent, name = _encoder_layers(model, total)
    stack = getattr(parent, name)
    setattr(parent, name, nn.ModuleList(stack[layer] for layer in kept))
    model.config.num_hidden_layers = len(kept)


def save(model: PreTrainedModel, tokenizer: Tokenizer, folder: Path) -> None:
    """A plain Hugging Face folder: config with label names, safetensors, tokenizer."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _encoder_layers(model: PreTrainedModel, total: int) -> tuple[nn.Module, str]:
    """Where the architecture keeps its stack of layers, whatever it calls it."""
    for parent in model.base_model.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == total:
                return parent, name
    raise StudentError(f"student_layers: {type(model).__name__} has no stack of {total} layers")
