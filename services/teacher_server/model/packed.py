"""The layers of the BERT family over instances one behind another: no padding is computed.

Takes the place of a network's own encoder, whose embeddings before it and pooler and head behind it stay.
Ten operations a layer and nothing around them: what transformers does beside them, for training and for
every other way to run a model, takes a tenth of the time of a single text, and more of a small batch.
"""

import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import GELUActivation
from transformers.modeling_outputs import (
    BaseModelOutputWithPastAndCrossAttentions,
    SequenceClassifierOutput,
)

from teacher_server.model.attention import Attend, Rows, probabilities

log = logging.getLogger(__name__)

# Where each architecture keeps its layers. Those listed compute position and type embeddings from the
# ids given, hand keyword arguments down to their encoder (all but MPNet), and classify by the first token.
ENCODERS = {
    "bert": "encoder",
    "camembert": "encoder",
    "distilbert": "transformer",
    "electra": "encoder",
    "mpnet": "encoder",
    "roberta": "encoder",
    "xlm-roberta": "encoder",
}
BIASED = {"mpnet"}  # add to the scores what depends on the distance of two tokens: no flash kernel does


class PackedLayer(nn.Module):
    """A layer of the BERT family or of DistilBERT, with query, key and value in one linear.

    Attributes:
        first_attention: where set, attention of first tokens alone.
    """

    def __init__(self, layer: nn.Module, heads: int, attend: Attend) -> None:
        super().__init__()
        projections, parts = _parts(layer)
        self.qkv: Any = _fused(projections)
        self.output, self.attention_norm, widen, activation, self.narrow, self.norm = parts
        exact = type(activation) is GELUActivation
        self.widen = nn.Sequential(widen, nn.GELU() if exact else activation)
        self.heads, self.attend = heads, attend
        self.first_attention: nn.Module | None = None

    def forward(
        self, states: Tensor, rows: Rows, bias: Tensor | None, first: bool, weights: list[list[Tensor]] | None
    ) -> Tensor:
        """[size, hidden] -> the same; adds its attention probabilities to `weights`, where there is one.

        Args:
            bias: of attention scores, [heads, longest, longest].
            first: only what becomes of each instance's first token: [firsts, hidden].
        """
        if first and weights is None and self.first_attention is not None:
            attended = self.first_attention(states, rows, bias)
        else:
            qkv = self.qkv(states).unflatten(-1, (3, self.heads, -1))
            if weights is not None:
                weights.append(probabilities(qkv, rows, bias))
            attended = self.attend(qkv, rows, bias, first).flatten(1)
        states = states[rows.firsts] if first else states
        states = self.attention_norm(self.output(attended).add_(states))
        norm: Tensor = self.norm(self.narrow(self.widen(states)).add_(states))
        return norm


class PackedLayers(nn.Module):
    """One layer behind another."""

    def __init__(self, layers: Iterable[PackedLayer]) -> None:
        super().__init__()
        self.each = nn.ModuleList(layers)
        self.last = len(self.each) - 1

    def forward(
        self,
        states: Tensor,
        rows: Rows,
        bias: Tensor | None,
        first: bool,
        keep: bool,
        weights: list[list[Tensor]] | None,
    ) -> list[Tensor]:
        """[size, hidden] -> the last layer's; with `keep` those given and each layer's.

        Args:
            first: of each instance's first token alone, [firsts, hidden] each: of the last layer no more is
                computed.
            weights: gets each layer's attention probabilities.
        """
        kept: list[Tensor] = []
        for number, layer in enumerate(self.each):
            if keep:
                kept.append(states[rows.firsts] if first else states)
            states = layer(states, rows, bias, first and number == self.last, weights)
        kept.append(states)
        return kept


class PackedEncoder(nn.Module):
    """All layers, and of the last one's states each instance's first token: what classifiers read.

    Where nobody wants more of the last layer than that, no more of it is computed.

    Attributes:
        run: the layers, as they are run.
        as_torch: a layer as torch itself computes it, for attention probabilities: they show an error of
            1e-6 in what they are computed from.
    """

    as_torch: Callable[[Any], PackedLayer] = staticmethod(lambda layer: layer)

    def __init__(self, network: PreTrainedModel, attend: Attend) -> None:
        super().__init__()
        encoder, heads = _encoder(network), network.config.num_attention_heads
        assert isinstance(encoder.layer, nn.ModuleList)
        self.layers = PackedLayers(PackedLayer(layer, heads, attend) for layer in encoder.layer)
        self.run: Callable[..., list[Tensor]] = self.layers
        encoder.layer = nn.ModuleList()  # their weights are here now
        self._biased: Any = encoder if network.config.model_type in BIASED else None

    def forward(
        self,
        hidden_states: Tensor,
        *_: Any,
        rows: Rows,
        first: bool = False,
        kept: list[Tensor] | None = None,
        weights: list[list[Tensor]] | None = None,
        **__: Any,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """[1, size, hidden] -> [firsts, 1, hidden].

        Args:
            first: nobody wants more of a layer than each instance's first token: of the last one no more
                is computed.
            kept: gets the states behind the embeddings and each layer, [size, hidden]; with `first`
                [firsts, hidden].
            weights: gets each layer's attention probabilities of each instance, [heads, length, length].
        """
        bias = self._bias(hidden_states[:, : rows.longest])
        # What TorchScript adds to a list, its caller does not see.
        run = self.run if weights is None else PackedLayers(map(self.as_torch, self.layers.each))
        states = run(hidden_states[0], rows, bias, first, kept is not None, weights)
        if kept is not None:
            kept += states
        firsts = states[-1] if first else states[-1][rows.firsts]
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=firsts[:, None])

    def script(self) -> None:
        """Has TorchScript run the layers, when all linears are in place: without Python's lock from the first
        operation to the last.

        A lane that takes the lock back after each operation waits for it as long as the event loop has it.
        TorchScript is deprecated in favour of compilers, which not every host has; what it runs is plain
        Python, and right without it.
        """
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            try:
                self.run = torch.jit.script(self.layers)
            except (RuntimeError, OSError) as error:  # of an activation; where sources are not installed
                log.warning("layers run as Python, which is slower", extra={"fault": type(error).__name__})

    def _bias(self, states: Tensor) -> Tensor | None:
        """[1, longest, hidden] -> [heads, longest, longest], by the distance of two tokens alone."""
        return None if self._biased is None else self._biased.compute_position_bias(states)[0]


def pack(network: PreTrainedModel, attend: Attend) -> PackedEncoder:
    """Puts a PackedEncoder in the place of the network's own."""
    packed = PackedEncoder(network, attend)
    network.base_model.set_submodule(ENCODERS[network.config.model_type], packed)
    if network.config.model_type == "mpnet":
        network.forward = MethodType(_mpnet, network)
    return packed


def _mpnet(network: Any, input_ids: Tensor, position_ids: Tensor, **given: Any) -> SequenceClassifierOutput:
    """Its forward; transformers' own hands keyword arguments to nobody."""
    embedded = network.mpnet.embeddings(input_ids=input_ids, position_ids=position_ids)
    states = network.mpnet.encoder(embedded, **given).last_hidden_state
    return SequenceClassifierOutput(logits=network.classifier(states))


def _encoder(network: PreTrainedModel) -> nn.Module:
    return network.base_model.get_submodule(ENCODERS[network.config.model_type])


def _parts(layer: Any) -> tuple[tuple[nn.Linear, ...], tuple[nn.Module, ...]]:
    """Query, key and value; and what follows them, in the order of the computation."""
    attention = layer.attention
    if hasattr(layer, "ffn"):  # DistilBERT
        block, norms = layer.ffn, (layer.sa_layer_norm, layer.output_layer_norm)
        outputs = (attention.out_lin, block.lin1, block.activation, block.lin2)
        projections = (attention.q_lin, attention.k_lin, attention.v_lin)
    elif hasattr(attention, "attn"):  # MPNet
        block, norms, own = layer.intermediate, (attention.LayerNorm, layer.output.LayerNorm), attention.attn
        outputs = (own.o, block.dense, block.intermediate_act_fn, layer.output.dense)
        projections = (own.q, own.k, own.v)
    else:
        block, norms = layer.intermediate, (attention.output.LayerNorm, layer.output.LayerNorm)
        outputs = (attention.output.dense, block.dense, block.intermediate_act_fn, layer.output.dense)
        projections = (attention.self.query, attention.self.key, attention.self.value)
    output, widen, activation, narrow = outputs
    return projections, (output, norms[0], widen, activation, narrow, norms[1])


def _fused(linears: Sequence[nn.Linear]) -> nn.Linear:
    """One linear whose outputs are those of all, one behind another."""
    return linear_of(*(torch.cat([getattr(one, name) for one in linears]) for name in ("weight", "bias")))


def linear_of(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Of [outputs, inputs] and [outputs]; it trains no more."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight, linear.bias = (nn.Parameter(one, requires_grad=False) for one in (weight, bias))
    return linear
