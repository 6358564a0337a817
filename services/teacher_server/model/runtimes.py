"""One forward over instances of unequal length: packed (no padding) where the architecture allows it,
padded everywhere else. Both give the same values within float32 rounding.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

from teacher_server.model.attention import Attend, Rows, looped, rounded, varlen
from teacher_server.model.encoding import Encoded
from teacher_server.model.loading import position_offset, type_count
from teacher_server.model.packed import BIASED, ENCODERS, pack

Name = Literal["packed", "varlen", "padded"]
Keep = Literal["nothing", "first", "all"]  # tokens of each instance whose states are wanted


@dataclass(frozen=True)
class States:
    """What one forward leaves.

    Attributes:
        logits: [instances, classes].
        layers: for each layer (0 = embeddings) [tokens, hidden], the instances one behind another, or of
            each the first token alone; empty if not asked for.
        lengths: tokens of each instance.
        attentions: for each layer (the first is 0 here) and instance [heads, tokens, tokens]; empty if not
            asked for.
    """

    logits: Tensor
    layers: tuple[Tensor, ...]
    lengths: list[int]
    attentions: Sequence[Sequence[Tensor]] = ()


class Runtime(Protocol):
    """How a forward is run."""

    name: Name
    heads: int  # attention heads of each layer; 0 if it cannot say what they attend to
    compiled: bool  # whether the network is: then sizes are rounded; attentions are computed without it

    def __call__(self, batch: Sequence[Encoded], *, keep: Keep, attentions: bool = False) -> States:
        """One forward over a batch in ascending order of length."""


def choose_runtime(network: PreTrainedModel) -> Runtime:
    """The fastest runtime that gives this architecture's values exactly on this device."""
    decodes = getattr(network.config, "is_decoder", False)
    # On an accelerator one kernel must do for a batch: without flash attention, that is the padded one.
    kind, on_cpu = network.config.model_type, network.device.type == "cpu"
    flash = network.device.type == "cuda" and _half(network.dtype) and kind not in BIASED
    if kind not in ENCODERS or decodes or not (on_cpu or flash):
        return Padded(network)
    return Packed(network, varlen if flash else looped)


def _half(dtype: torch.dtype) -> bool:
    return dtype in (torch.float16, torch.bfloat16)


class Padded:
    """Rows padded to the longest, with an attention mask: any architecture."""

    name: Name = "padded"
    compiled = False

    def __init__(self, network: PreTrainedModel) -> None:
        self._network, self._typed = network, type_count(network) > 1
        self._pad = network.config.pad_token_id or 0
        self._fast = network.config._attn_implementation
        self._eager = threading.Lock()
        self.heads = self._heads()

    def _heads(self) -> int:
        """By trial: architectures differ in what they call attentions, and some have none."""
        with torch.inference_mode():
            try:
                found = self([Encoded([self._pad + 1] * 3)], keep="nothing", attentions=True).attentions
            except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
                return 0
        shapes = {tuple(one.shape) for layer in found for one in layer}
        heads = getattr(self._network.config, "num_attention_heads", 0)
        whole = len(found) == self._network.config.num_hidden_layers and shapes == {(heads, 3, 3)}
        return heads if whole else 0

    def __call__(self, batch: Sequence[Encoded], *, keep: Keep, attentions: bool = False) -> States:
        device, lengths = self._network.device, [encoded.tokens for encoded in batch]
        compiled = self.compiled and not attentions
        real = self._real(lengths, few=compiled)
        ids = torch.full(real.shape, self._pad)
        ids[real] = torch.tensor([index for encoded in batch for index in encoded.ids])
        mask = real.long()
        mask[:, 0] = 1  # also in a made-up row
        inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
        if self._typed:
            types = torch.zeros_like(ids)
            types[real] = _type_ids(batch)
            inputs["token_type_ids"] = types.to(device)
        run = self._network.forward if attentions else self._network
        with self._attending(attentions):  # states that nobody wants cost less than a second compiled graph
            hidden = keep != "nothing" or compiled
            outputs = run(**inputs, output_hidden_states=hidden, output_attentions=attentions)
        wanted = (slice(len(batch)), 0) if keep == "first" else real.to(device)
        layers = tuple(states[wanted] for states in outputs.hidden_states) if keep != "nothing" else ()
        weights = [_cut_to(lengths, layer) for layer in outputs.attentions] if attentions else ()
        return States(outputs.logits[: len(batch)], layers, lengths, weights)

    def _real(self, lengths: list[int], *, few: bool) -> Tensor:
        """Which tokens there are [rows, longest]; with `few`, of a few numbers of rows and lengths."""
        rows, longest = len(lengths), max(lengths)
        if few:
            limit = getattr(self._network.config, "max_position_embeddings", 0)
            rows, longest = rounded(rows, least=1), max(longest, min(rounded(longest), limit))
        return torch.arange(longest) < torch.tensor(lengths + [0] * (rows - len(lengths)))[:, None]

    @contextmanager
    def _attending(self, attentions: bool) -> Iterator[None]:
        """The fast kernels do not say what attends to what."""
        if not attentions or self._fast == "eager":
            yield
            return
        with self._eager:  # meanwhile the other lane is slower, and no less right
            self._network.set_attn_implementation("eager")
            try:
                yield
            finally:
                self._network.set_attn_implementation(self._fast)


class Packed:
    """All tokens in one row [1, tokens]; attention runs within each instance: no padding is computed."""

    compiled = False

    def __init__(self, network: PreTrainedModel, attend: Attend) -> None:
        self._network, self._typed = network, type_count(network) > 1
        self._offset, self._pad = position_offset(network), network.config.pad_token_id
        self.heads = network.config.num_attention_heads
        self.name: Name = "varlen" if attend is varlen else "packed"
        self.encoder = pack(network, attend)

    def __call__(self, batch: Sequence[Encoded], *, keep: Keep, attentions: bool = False) -> States:
        device, lengths = self._network.device, [encoded.tokens for encoded in batch]
        ids = torch.tensor([[index for encoded in batch for index in encoded.ids]])
        inputs = {"input_ids": ids, "position_ids": self._positions(ids, lengths)}
        if self._typed:
            inputs["token_type_ids"] = _type_ids(batch)[None]
        compiled = self.compiled and not attentions
        rows = Rows.of(lengths, device, few=compiled)
        more = rows.size - rows.tokens
        on_device = {name: pad(tensor, (0, more)).to(device) for name, tensor in inputs.items()}
        first = keep != "all" and not compiled
        kept: list[Tensor] | None = None if keep == "nothing" and not compiled else []
        weights: list[list[Tensor]] | None = [] if attentions else None
        run = self._network.forward if attentions else self._network
        logits = run(**on_device, rows=rows, first=first, kept=kept, weights=weights).logits
        wanted = len(batch) if first else rows.tokens
        layers = [states[:wanted] for states in kept or () if keep != "nothing"]
        return States(logits[: len(batch)], tuple(layers), lengths, weights or ())

    def _positions(self, ids: Tensor, lengths: list[int]) -> Tensor:
        """Position ids [1, tokens] that start anew with each instance."""
        if not self._offset:
            return torch.cat([torch.arange(length) for length in lengths])[None]
        # RoBERTa's positions count real tokens: a padding token written out in a text has none.
        real = (ids[0] != self._pad).long()
        counted = [part.cumsum(0) * part for part in real.split(lengths)]
        return (torch.cat(counted) + self._offset - 1)[None]


def _cut_to(lengths: Sequence[int], attentions: Tensor) -> list[Tensor]:
    """Of [instances, heads, longest, longest] each instance's own tokens."""
    return [one[:, :length, :length] for one, length in zip(attentions, lengths, strict=True)]


def _type_ids(batch: Sequence[Encoded]) -> Tensor:
    """Segment ids of all tokens [tokens]."""
    return torch.tensor([index for encoded in batch for index in encoded.type_ids or [0] * encoded.tokens])
