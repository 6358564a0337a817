"""One forward over instances of unequal length: packed (no padding) where the architecture allows it,
padded everywhere else. Both give the same values within float32 rounding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from teacher_server.model.encoding import Encoded
from teacher_server.model.loading import position_offset, type_count


@dataclass(frozen=True)
class States:
    """What one forward leaves.

    Attributes:
        logits: [instances, classes].
        layers: for each layer (0 = embeddings) [tokens, hidden], the instances one behind another;
            empty if not asked for.
        lengths: tokens of each instance.
    """

    logits: Tensor
    layers: tuple[Tensor, ...]
    lengths: list[int]


class Runtime(Protocol):
    """How a forward is run."""

    name: Literal["packed", "padded"]

    def __call__(self, batch: Sequence[Encoded], *, hidden: bool) -> States:
        """One forward over a batch in ascending order of length."""


def choose_runtime(network: PreTrainedModel) -> Runtime:
    """The fastest runtime that gives this architecture's values exactly."""
    encoder = _ENCODERS.get(network.config.model_type)
    if encoder is None or getattr(network.config, "is_decoder", False):
        return Padded(network)
    return Packed(network, encoder)


class Padded:
    """Rows padded to the longest, with an attention mask: any architecture."""

    name: Literal["packed", "padded"] = "padded"

    def __init__(self, network: PreTrainedModel) -> None:
        self._network, self._typed = network, type_count(network) > 1
        self._pad = network.config.pad_token_id or 0

    def __call__(self, batch: Sequence[Encoded], *, hidden: bool) -> States:
        device, lengths = self._network.device, [encoded.tokens for encoded in batch]
        longest = max(lengths)
        real = torch.arange(longest) < torch.tensor(lengths)[:, None]
        ids = torch.full(real.shape, self._pad)
        ids[real] = torch.tensor([index for encoded in batch for index in encoded.ids])
        inputs = {"input_ids": ids.to(device), "attention_mask": real.long().to(device)}
        if self._typed:
            types = torch.zeros_like(ids)
            types[real] = _type_ids(batch)
            inputs["token_type_ids"] = types.to(device)
        outputs = self._network(**inputs, output_hidden_states=hidden)
        rows = real.to(device)
        layers = tuple(states[rows] for states in outputs.hidden_states) if hidden else ()
        return States(outputs.logits, layers, lengths)


# Where each architecture keeps its layers. Those listed compute position and type embeddings from the
# ids given, let attention through transformers' AttentionInterface, and classify by the first token.
_ENCODERS = {
    "bert": "encoder",
    "camembert": "encoder",
    "distilbert": "transformer",
    "electra": "encoder",
    "roberta": "encoder",
    "xlm-roberta": "encoder",
}


class Packed:
    """All tokens in one row [1, tokens]; attention runs within each instance: no padding is computed."""

    name: Literal["packed", "padded"] = "packed"

    def __init__(self, network: PreTrainedModel, encoder: str) -> None:
        self._network, self._typed = network, type_count(network) > 1
        self._offset, self._pad = position_offset(network), network.config.pad_token_id
        network.set_attn_implementation("packed")
        # Keeps the last layer's full states: the encoder's output is cut to the first tokens below.
        network.config.tie_last_hidden_states = False
        network.base_model.get_submodule(encoder).register_forward_hook(_first_tokens, with_kwargs=True)

    def __call__(self, batch: Sequence[Encoded], *, hidden: bool) -> States:
        device, lengths = self._network.device, [encoded.tokens for encoded in batch]
        ids = torch.tensor([[index for encoded in batch for index in encoded.ids]])
        inputs = {"input_ids": ids, "position_ids": self._positions(ids, lengths)}
        if self._typed:
            inputs["token_type_ids"] = _type_ids(batch)[None]
        on_device = {name: tensor.to(device) for name, tensor in inputs.items()}
        outputs = self._network(**on_device, lengths=lengths, output_hidden_states=hidden)
        layers = tuple(states[0] for states in outputs.hidden_states) if hidden else ()
        return States(outputs.logits, layers, lengths)

    def _positions(self, ids: Tensor, lengths: list[int]) -> Tensor:
        """Position ids [1, tokens] that start anew with each instance."""
        if not self._offset:
            return torch.cat([torch.arange(length) for length in lengths])[None]
        # RoBERTa's positions count real tokens: a padding token written out in a text has none.
        real = (ids[0] != self._pad).long()
        counted = [part.cumsum(0) * part for part in real.split(lengths)]
        return (torch.cat(counted) + self._offset - 1)[None]


def _first_tokens(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: BaseModelOutput
) -> BaseModelOutput:
    """Hands the head one row for each instance, [instances, 1, hidden], in place of [1, tokens, hidden]."""
    assert output.last_hidden_state is not None
    starts = [0, *accumulate(kwargs["lengths"][:-1])]
    output.last_hidden_state = output.last_hidden_state[0, starts, None]
    return output


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    lengths: Sequence[int],
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention within each instance; those of equal length, which are neighbours, go together.

    Args:
        query, key, value: [1, heads, tokens, width].
        lengths: tokens of each instance, ascending.

    Returns:
        [1, tokens, heads, width], and None in place of attention weights.
    """
    mixed = []
    for span, shape in _equal_lengths(lengths):
        q, k, v = (_rows(states, span, shape) for states in (query, key, value))
        attended = scaled_dot_product_attention(q, k, v, scale=scaling)  # [count, heads, length, width]
        mixed.append(attended.transpose(1, 2).flatten(0, 1))
    return torch.cat(mixed)[None], None


def _rows(states: Tensor, span: slice, shape: tuple[int, int]) -> Tensor:
    """Of [1, heads, tokens, width] the tokens of `span` as [instances, heads, length, width]: a view."""
    heads, _, width = states.shape[1:]
    return states[0, :, span].view(heads, *shape, width).transpose(0, 1)


def _equal_lengths(lengths: Sequence[int]) -> Iterator[tuple[slice, tuple[int, int]]]:
    """For each run of equal lengths: its tokens, and (instances, length)."""
    runs = [(len(list(run)), length) for length, run in groupby(lengths)]
    ends = accumulate((count * length for count, length in runs), initial=0)
    for (start, end), shape in zip(pairwise(ends), runs, strict=True):
        yield slice(start, end), shape


def _type_ids(batch: Sequence[Encoded]) -> Tensor:
    """Segment ids of all tokens [tokens]."""
    return torch.tensor([index for encoded in batch for index in encoded.type_ids or [0] * encoded.tokens])


AttentionInterface.register("packed", packed_attention)
