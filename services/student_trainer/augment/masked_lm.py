"""Candidates of a word from a masked language model that reads the sentence without it."""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from safetensors import SafetensorError
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

from student_trainer.augment.words import Slot, best_others, is_word, replaceable
from student_trainer.config import AugmentSettings, ConfigError
from student_trainer.student import positions

_CASES = 3  # more than the candidates, to be sought: `Film`, `film` and `FILM` are no others than film


@dataclass(frozen=True)
class _Gap:
    """A text whose word at (start, end) was taken out: token ids with one mask, and its place in them."""

    word: str
    start: int
    end: int
    tokens: list[int]
    place: int


class MaskedLM:
    """Proposes what the model holds most likely in a word's place, as TinyBERT does.

    A word is masked whole: one of several pieces gives way to a single mask. So a candidate is always a
    whole word of the vocabulary, never a piece. The other words of the text stay as they are, and the other
    sentence of a pair is not read.

    Args:
        count: candidates of a word.
        batch_size: masked texts in a pass.
        max_length: of a text, in tokens; words that do not fit in are not replaced.
    """

    def __init__(
        self,
        network: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        count: int,
        batch_size: int,
        max_length: int,
    ) -> None:
        self._network, self._tokenizer = network, tokenizer
        self._count, self._batch_size = count, batch_size
        limits = positions(network), getattr(network.config, "max_position_embeddings", max_length)
        self._max_length = int(min(max_length, tokenizer.model_max_length, *limits))
        self._ids, self._words = _whole_words(tokenizer)
        self.fingerprint = _digest(network, self._words)

    @classmethod
    def load(cls, settings: AugmentSettings) -> Self:
        """Raises ConfigError if there is no such model, or if its weights are not those of a masked LM."""
        source = str(settings.masked_lm)
        device = torch.accelerator.current_accelerator() if not settings.cpu else None
        network = _network(source).to(device or torch.device("cpu"))  # type: ignore[arg-type]
        tokenizer = _tokenizer(source)
        return cls(network, tokenizer, settings.candidates, settings.batch_size, settings.max_length)

    def __call__(self, texts: list[str]) -> list[list[Slot]]:
        gaps = self._gaps(texts)
        flat = list(itertools.chain.from_iterable(gaps))
        slots = iter(self._filled(flat))
        return [list(itertools.islice(slots, len(of_text))) for of_text in gaps]

    def _gaps(self, texts: list[str]) -> list[list[_Gap]]:
        encoded = self._tokenizer(texts, truncation=True, max_length=self._max_length) if texts else {}
        return [list(self._gaps_of(encoded, number, text)) for number, text in enumerate(texts)]

    def _gaps_of(self, encoded: Any, number: int, text: str) -> Iterator[_Gap]:
        tokens = encoded["input_ids"][number]
        for start, end in replaceable(text):
            first = encoded.char_to_token(number, start)
            last = encoded.char_to_token(number, end - 1)
            if first is not None and last is not None:  # None: behind the longest input
                masked = [*tokens[:first], self._tokenizer.mask_token_id, *tokens[last + 1 :]]
                yield _Gap(text[start:end], start, end, masked, first)

    def _filled(self, gaps: list[_Gap]) -> list[Slot]:
        """Passes of texts of similar length: the less padding."""
        order = sorted(range(len(gaps)), key=lambda number: len(gaps[number].tokens))
        slots: dict[int, Slot] = {}
        for begin in range(0, len(order), self._batch_size):
            numbers = order[begin : begin + self._batch_size]
            slots.update(zip(numbers, self._pass([gaps[number] for number in numbers]), strict=True))
        return [slots[number] for number in range(len(gaps))]

    def _pass(self, gaps: list[_Gap]) -> Iterator[Slot]:
        count = min(self._count + _CASES, len(self._words))
        best = self._logits(gaps)[:, self._ids.to(self._network.device)].topk(count).indices.tolist()
        for gap, ranked in zip(gaps, best, strict=True):
            words = (self._words[index] for index in ranked)
            yield Slot(gap.start, gap.end, best_others(gap.word, words, self._count))

    @torch.inference_mode()
    def _logits(self, gaps: list[_Gap]) -> torch.Tensor:
        """[gaps, vocabulary], at the masks. The last layer, the widest, is spared all the other tokens."""
        inputs = self._tokenizer.pad({"input_ids": [gap.tokens for gap in gaps]}, return_tensors="pt")
        rows, places = torch.arange(len(gaps)), torch.tensor([gap.place for gap in gaps])
        last: torch.nn.Module = self._network.get_output_embeddings()  # type: ignore[no-untyped-call]
        hook = last.register_forward_pre_hook(lambda _, given: (given[0][rows, places, None],))
        try:
            logits: torch.Tensor = self._network(**inputs.to(self._network.device)).logits
        finally:
            hook.remove()
        return logits[:, 0]


def _network(source: str) -> PreTrainedModel:
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # weights that it has not are refused below
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        network, report = AutoModelForMaskedLM.from_pretrained(
            source,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ConfigError(_unloadable(source, error)) from None
    if missing := sorted(map(str, report["missing_keys"])):
        raise ConfigError(
            f"masked_lm: {source!r} is no masked language model: its weights lack {', '.join(missing[:3])}, "
            "which would be random; give one, or `word_vectors`"
        )
    assert isinstance(network, PreTrainedModel)
    network.train(False).requires_grad_(False)
    return network


def _tokenizer(source: str) -> PreTrainedTokenizerFast:
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(_unloadable(source, error)) from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or tokenizer.mask_token_id is None:
        raise ConfigError(f"masked_lm: {source!r} has no fast tokenizer (tokenizer.json) with a mask token")
    return tokenizer


def _unloadable(source: str, error: Exception) -> str:
    return (
        f"masked_lm: {source!r} cannot be loaded; give a folder with config.json, model.safetensors and a "
        f"tokenizer, or a hub name ({' '.join(str(error).split())})"
    )


def _whole_words(tokenizer: PreTrainedTokenizerFast) -> tuple[torch.Tensor, list[str]]:
    """Ids [words] and texts of the tokens that are words: whatever marks a piece in this vocabulary, a
    word is what the tokenizer itself makes one token of, behind a mark and a space.

    Raises ConfigError if there are none, as where the tokenizer's vocabulary is missing.
    """
    texts = [str(tokenizer.decode([number])).strip() for number in range(len(tokenizer))]
    words = [(number, text) for number, text in enumerate(texts) if is_word(text)]
    sentences = [".", *(f". {text}" for _, text in words)]
    mark, *encoded = tokenizer(sentences, add_special_tokens=False)["input_ids"]
    whole = [word for word, tokens in zip(words, encoded, strict=True) if tokens == [*mark, word[0]]]
    if len(whole) < 2:
        raise ConfigError("masked_lm: its tokenizer has no vocabulary of words; give another model")
    return torch.tensor([number for number, _ in whole]), [text for _, text in whole]


def _digest(network: PreTrainedModel, words: list[str]) -> str:
    digest = hashlib.sha256(" ".join(words).encode())
    for name, weights in sorted(network.state_dict().items()):
        digest.update(name.encode() + weights.cpu().numpy().tobytes())
    return digest.hexdigest()
