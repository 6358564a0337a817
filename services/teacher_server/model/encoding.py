"""Text to token ids, exactly as the model's own tokenizer does it, but for padding."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tokenizers import Encoding, Tokenizer

from teacher_api.errors import InvalidRequestError
from teacher_api.identity import vocabulary_hash
from teacher_api.messages import Instance
from teacher_server.model.loading import Checkpoint, ModelError, type_count


@dataclass(frozen=True, slots=True)
class Encoded:
    """One tokenised instance: special tokens included, no padding.

    Attributes:
        ids: token ids.
        type_ids: segment of each token; empty means all zeros.
    """

    ids: list[int]
    type_ids: list[int] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return len(self.ids)


class Encoder:
    """Tokenises with truncation at `max_length` (the longer text of a pair first) and never pads.

    It owns a copy of the tokenizers library's object: a tokenizer.json may ask for padding silently,
    and transformers sets truncation anew on each call, which is not safe in several threads.
    """

    def __init__(self, checkpoint: Checkpoint, max_length: int) -> None:
        """
        Args:
            checkpoint: the tokenizer, and the network whose ids and positions bound the input.
            max_length: longest result in tokens, special tokens included.

        Raises:
            ModelError: max_length is more than the positions, or no more than a pair's special tokens;
                the tokenizer has ids that the network does not.
        """
        tokenizer = checkpoint.tokenizer
        self._backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        _check_length(max_length, self._backend.num_special_tokens_to_add(True), checkpoint.position_limit)
        _check_vocabulary(max(self._backend.get_vocab().values()) + 1, checkpoint.vocabulary)
        self._backend.no_padding()
        self._backend.enable_truncation(max_length, direction=tokenizer.truncation_side)
        self._max_length, self._vocabulary = max_length, checkpoint.vocabulary
        self._types = type_count(checkpoint.network)
        self._typed = self._types > 1 and "token_type_ids" in tokenizer.model_input_names

    def __call__(self, instances: Sequence[Instance]) -> list[Encoded]:
        """Raises InvalidRequestError for token ids that the model does not have, or too many of them."""
        texts = [_text(instance) for instance in instances if instance.token_ids is None]
        encodings = iter(self._encode(texts))
        return [
            self._from_text(next(encodings))
            if instance.token_ids is None
            else self._from_ids(index, instance)
            for index, instance in enumerate(instances)
        ]

    def vocabulary_hash(self) -> str:
        """Which vocabulary it is."""
        return vocabulary_hash(self._backend.get_vocab())

    def _encode(self, texts: list[str | tuple[str, str]]) -> list[Encoding]:
        try:
            return self._backend.encode_batch_fast(texts)
        except (TypeError, UnicodeError) as error:  # a lone surrogate cannot be written as UTF-8
            raise InvalidRequestError("a text is not valid Unicode", field="instances") from error

    def _from_text(self, encoding: Encoding) -> Encoded:
        return Encoded(encoding.ids, encoding.type_ids if self._typed else [])

    def _from_ids(self, index: int, instance: Instance) -> Encoded:
        ids, types = list(instance.token_ids or ()), list(instance.type_ids)
        where = f"instances[{index}].tokens"
        if not 1 <= len(ids) <= self._max_length:
            raise InvalidRequestError(
                "token ids: none, or too many", field=f"{where}.ids", value=len(ids), limit=self._max_length
            )
        if types and len(types) != len(ids):
            raise InvalidRequestError(
                "one type id for each token id, or none", field=f"{where}.type_ids", value=len(types)
            )
        _check_below(self._vocabulary, ids, f"{where}.ids")
        _check_below(self._types, types, f"{where}.type_ids")
        return Encoded(ids, types if self._types > 1 else [])


def _text(instance: Instance) -> str | tuple[str, str]:
    return instance.text if instance.text_pair is None else (instance.text, instance.text_pair)


def _check_below(limit: int, ids: list[int], where: str) -> None:
    for index in ids:
        if not 0 <= index < limit:
            raise InvalidRequestError("the model has no such id", field=where, value=index, limit=limit - 1)


def _check_length(max_length: int, special: int, positions: int | None) -> None:
    if max_length <= special:
        raise ModelError(f"max_length {max_length} leaves no room: a pair has {special} special tokens")
    if positions is not None and max_length > positions:
        raise ModelError(f"max_length {max_length} is more than the model's {positions} positions")


def _check_vocabulary(tokenizer: int, network: int) -> None:
    if tokenizer > network:  # on a GPU, one id too large would end the whole process
        raise ModelError(
            f"the tokenizer has {tokenizer} ids, the model {network}: they do not belong together"
        )
