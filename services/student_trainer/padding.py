"""Encoders that compute nothing for padding, and look from outside as they always did.

Padded batches go in, padded hidden states and logits come out. Between the embeddings and the head only
the real tokens are computed, in one row [1, tokens, h]; attention alone, a small part of the work, is
padded. Of a batch of short texts with one long among them, that is half of a step.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

# Where each architecture keeps its layers. Those listed hand all keyword arguments on to attention, let it
# through transformers' AttentionInterface, and mix tokens nowhere else.
_ENCODERS = {
    "bert": "encoder",
    "camembert": "encoder",
    "distilbert": "transformer",
    "electra": "encoder",
    "roberta": "encoder",
    "xlm-roberta": "encoder",
}
_NAME = "student_without_padding"


def skip_padding(network: PreTrainedModel) -> bool:
    """Lets a classifier compute real tokens only, from its next forward on; -> whether its architecture can.

    Values and gradients stay the same within float32 rounding, and nothing of it is saved with the model.
    """
    encoder = _ENCODERS.get(network.config.model_type)
    if encoder is None or getattr(network.config, "is_decoder", False):
        return False
    network.set_attn_implementation(_NAME)
    layers = network.base_model.get_submodule(encoder)
    layers.register_forward_pre_hook(_packed, with_kwargs=True)
    layers.register_forward_hook(_unpacked, with_kwargs=True)
    network.register_forward_hook(_unpacked_states, with_kwargs=True)
    return True


def _packed(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Before the layers: [n, longest, h] -> [1, tokens, h]; `real` [n, longest] tells where tokens are."""
    if (mask := kwargs["attention_mask"]) is None:  # nothing is padded
        return None
    real = mask[:, 0, 0]
    states: Tensor = args[0] if args else kwargs["hidden_states"]
    return (), kwargs | {"hidden_states": states[real][None], "real": real}


def _unpacked(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: BaseModelOutput
) -> BaseModelOutput:
    """Behind the layers: [1, tokens, h] -> [n, longest, h]."""
    if (real := kwargs.get("real")) is not None:
        assert output.last_hidden_state is not None
        output.last_hidden_state = _padded(output.last_hidden_state[0], real)
    return output


def _unpacked_states(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: SequenceClassifierOutput
) -> SequenceClassifierOutput:
    """Of all layers, where they are asked for. The last one's are those that `_unpacked` has made."""
    if output.hidden_states:
        real = kwargs["attention_mask"].bool()
        output.hidden_states = tuple(
            states if states.shape[:2] == real.shape else _padded(states[0], real)
            for states in output.hidden_states
        )
    return output


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    real: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' own attention: from and to [1, heads, tokens, width] where there is padding.

    Returns:
        [1, tokens, heads, width], and None in place of attention weights.
    """
    if real is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    q, k, v = (_padded(states[0].transpose(0, 1), real).transpose(1, 2) for states in (query, key, value))
    mixed, _ = sdpa_attention_forward(module, q, k, v, attention_mask, **kwargs)
    return mixed[real][None], None


def _padded(tokens: Tensor, real: Tensor) -> Tensor:
    """[tokens, …] -> [n, longest, …], zero where `real` [n, longest] is not."""
    places = real.flatten().nonzero().flatten()
    zeros = tokens.new_zeros(real.numel(), *tokens.shape[1:])
    return zeros.index_copy(0, places, tokens).view(*real.shape, *tokens.shape[1:])


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)
