"""The layers of the BERT family over instances one behind another: no padding is computed.

Takes the place of a network's own encoder, whose embeddings before it and pooler and head behind it stay.
Ten operations a layer and nothing around them: what transformers does beside them, for training and for
every other way to run a model, takes a tenth of the time of a single text, and more of a small batch.
"""

from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import (
    BaseModelOutputWithPastAndCrossAttentions,
    SequenceClassifierOutput,
)

from teacher_server.model.attention import Attend, Rows, probabilities

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
    """A layer of the BERT family or of DistilBERT, with query, key and value in one linear."""

    def __init__(self, layer: nn.Module, heads: int, attend: Attend) -> None:
        super().__init__()
        projections, parts = _parts(layer)
        self.qkv = _fused(projections)
        self.output, self.attention_norm, widen, activation, self.narrow, self.norm = parts
        self.widen = nn.Sequential(widen, activation)
        self._heads, self._attend = heads, attend

    def forward(
        self,
        states: Tensor,
        rows: Rows,
        bias: Tensor | None,
        weights: list[list[Tensor]] | None,
        *,
        first: bool = False,
    ) -> Tensor:
        """[size, hidden] -> the same; adds its attention probabilities to `weights`, where there is one.

        Args:
            bias: of attention scores, [heads, longest, longest].
            first: only what becomes of each instance's first token: [firsts, hidden].
        """
        qkv = self.qkv(states).unflatten(-1, (3, self._heads, -1))
        if weights is not None:
            weights.append(probabilities(qkv, rows, bias))
        mixed = self.output(self._attend(qkv, rows, bias=bias, first=first).flatten(1))
        states = states[rows.firsts] if first else states
        states = self.attention_norm(mixed.add_(states))
        norm: Tensor = self.norm(self.narrow(self.widen(states)).add_(states))
        return norm


class PackedEncoder(nn.Module):
    """All layers, and of the last one's states each instance's first token: what classifiers read.

    Where nobody wants more of the last layer than that, no more of it is computed.

    Attributes:
        as_torch: a layer as torch itself computes it, for attention probabilities: they show an error of
            1e-6 in what they are computed from.
    """

    as_torch: Callable[[Any], PackedLayer] = staticmethod(lambda layer: layer)

    def __init__(self, network: PreTrainedModel, attend: Attend) -> None:
        super().__init__()
        encoder, heads = _encoder(network), network.config.num_attention_heads
        assert isinstance(encoder.layer, nn.ModuleList)
        self.layers = nn.ModuleList(PackedLayer(layer, heads, attend) for layer in encoder.layer)
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
        states, bias = hidden_states[0], self._bias(hidden_states[:, : rows.longest])
        layers = list(self.layers if weights is None else map(self.as_torch, self.layers))
        for layer in layers:
            if kept is not None:
                kept.append(states[rows.firsts] if first else states)
            states = layer(states, rows, bias, weights, first=first and layer is layers[-1])
        if kept is not None:
            kept.append(states)
        firsts = states if first else states[rows.firsts]
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=firsts[:, None])

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
