"""Reading a checkpoint from a folder or the hub, or saying clearly why it cannot be served."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch.nn import Embedding
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from teacher_server.model.dtypes import DType, fastest_dtype

AskedDType = Literal["auto"] | DType


class ModelError(ValueError):
    """The checkpoint, or what is asked of it, cannot be served: the message says why and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A classifier in eval mode on its device, its tokenizer, and in which numbers it is to compute."""

    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerFast
    network: PreTrainedModel
    dtype: DType

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes in the order of the logits."""
        return tuple(str(name) for _, name in sorted(dict(self.config.id2label or {}).items()))

    @property
    def intermediate_size(self) -> int:
        """Width of the feed-forward layers, by whichever name the architecture gives it; 0 if unknown."""
        names = ("intermediate_size", "hidden_dim")
        return next((int(getattr(self.config, name)) for name in names if hasattr(self.config, name)), 0)

    @property
    def vocabulary(self) -> int:
        """Number of token ids that the model knows."""
        table = self.network.get_input_embeddings()
        assert isinstance(table, Embedding)
        return table.num_embeddings

    @property
    def position_limit(self) -> int | None:
        """Longest input in tokens that the positions allow; None if they set no limit."""
        table = _positions(self.network)
        if table is not None:
            return table.num_embeddings - position_offset(self.network)
        limit = getattr(self.config, "max_position_embeddings", None)
        return limit if limit and limit > 0 else None


def load_checkpoint(source: str, device: str, dtype: AskedDType) -> Checkpoint:
    """Reads config, tokenizer and safetensors weights; code beside the weights is never run.

    Args:
        source: a local folder or a hub name.
        device: "auto" (an accelerator if there is one), or a torch device such as "cpu" or "cuda:1".
        dtype: in which the model computes; "auto" asks the processor.

    Raises:
        ModelError: nothing there, pickled or broken weights, no classification head, no fast tokenizer.
    """
    config, place = _config(source), _device(device)
    chosen = fastest_dtype(place) if dtype == "auto" else dtype
    _refuse_int8(chosen, place)
    network = _network(source, config, "float32" if chosen == "int8" else chosen)
    network.to(place)  # type: ignore[arg-type]  # its own decorator hides Module.to's signature
    return Checkpoint(config, _tokenizer(source), network, chosen)


def position_offset(network: PreTrainedModel) -> int:
    """Position id of a text's first token: 0, or the one behind the padding id (RoBERTa, MPNet)."""
    table = _positions(network)
    return 0 if table is None or table.padding_idx is None else table.padding_idx + 1


def type_count(network: PreTrainedModel) -> int:
    """Number of segment ids (token_type_ids) that the model tells apart; 1 if it knows none."""
    return max(1, int(getattr(network.config, "type_vocab_size", 1)))


def _positions(network: PreTrainedModel) -> Embedding | None:
    """The table of absolute position embeddings, where the architecture has one."""
    tables = (m for name, m in network.named_modules() if name.endswith(".position_embeddings"))
    return next((table for table in tables if isinstance(table, Embedding)), None)


def _config(source: str) -> PreTrainedConfig:
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        where = "" if Path(source).is_dir() else "no such folder, and as a hub name: "
        raise ModelError(f"no model can be read from {source!r}: {where}{error}") from error
    if config.is_encoder_decoder:
        raise ModelError(f"{config.model_type} is an encoder-decoder; only encoders with a head are served")
    return config


def _tokenizer(source: str) -> PreTrainedTokenizerFast:
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"no tokenizer can be read from {source!r}: {error}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelError(f"{source!r} has no fast tokenizer (tokenizer.json)")
    # Where its files are missing, transformers makes one up that knows nothing but special tokens.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise ModelError(f"no tokenizer can be read from {source!r}: its vocabulary is empty")
    return tokenizer


def _network(source: str, config: PreTrainedConfig, dtype: DType) -> PreTrainedModel:
    _refuse_pickle(source)
    try:
        network, report = AutoModelForSequenceClassification.from_pretrained(
            source,
            config=config,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the weights in {source!r} cannot be served: {error}") from error
    _refuse_fresh_weights(source, report)
    assert isinstance(network, PreTrainedModel)
    network.train(False).requires_grad_(False)
    return network


def _refuse_int8(dtype: DType, device: torch.device) -> None:
    able = device.type == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if dtype == "int8" and not able:
        raise ModelError(
            f"dtype 'int8' needs a CPU and a torch with oneDNN, not {device}: take bfloat16 there"
        )


def _refuse_pickle(source: str) -> None:
    folder = Path(source)
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        pickled = ", ".join(sorted(path.name for path in folder.glob("*.bin")))
        found = f"only pickled ones ({pickled}), which can run code" if pickled else "no weights at all"
        raise ModelError(
            f"{source!r} has no safetensors weights, but {found}: save the model with save_pretrained"
        )


def _refuse_fresh_weights(source: str, report: dict[str, Any]) -> None:
    missing = sorted(map(str, report["missing_keys"]))
    if missing:
        raise ModelError(
            f"{source!r} is not a fine-tuned classifier: its weights lack {', '.join(missing[:4])}"
            f"{' …' if len(missing) > 4 else ''}, which would be random; fine-tune it first"
        )


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.accelerator.current_accelerator() or torch.device("cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device {device!r} is not available: {error}") from error
