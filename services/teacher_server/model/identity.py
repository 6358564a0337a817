"""Who a loaded model is: a digest over everything that can change an answer."""

import json
from collections.abc import Iterator

import torch
from torch import Tensor

from teacher_api.identity import fingerprint
from teacher_server.model.loading import Checkpoint

# Where a model was saved, and by which version, does not change what it answers.
_VOLATILE = {
    "_name_or_path",
    "_attn_implementation",
    "architectures",
    "dtype",
    "torch_dtype",
    "transformers_version",
}


def fingerprint_of(checkpoint: Checkpoint, dtype: str, max_length: int) -> str:
    """Digest over weights, config, tokenizer, label order, compute dtype and maximum length.

    The same checkpoint copied elsewhere keeps its fingerprint; any change to one of these gives another.
    """
    return fingerprint(_parts(checkpoint, dtype, max_length))


def _parts(checkpoint: Checkpoint, dtype: str, max_length: int) -> Iterator[bytes | memoryview]:
    yield b"teacher-fingerprint-1"
    yield dtype.encode()
    yield str(max_length).encode()
    yield json.dumps(checkpoint.labels).encode()
    yield _config(checkpoint)
    yield _tokenizer(checkpoint)
    for name, tensor in sorted(checkpoint.network.state_dict().items()):
        yield f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
        yield _raw(tensor)


def _config(checkpoint: Checkpoint) -> bytes:
    values = {name: value for name, value in checkpoint.config.to_dict().items() if name not in _VOLATILE}
    return json.dumps(values, sort_keys=True, default=str).encode()


def _tokenizer(checkpoint: Checkpoint) -> bytes:
    """Everything but truncation and padding, which this server sets itself."""
    backend = json.loads(checkpoint.tokenizer.backend_tokenizer.to_str())
    backend |= {"truncation": None, "padding": None}
    special = {name: str(token) for name, token in checkpoint.tokenizer.special_tokens_map.items()}
    return json.dumps([backend, special, checkpoint.tokenizer.truncation_side], sort_keys=True).encode()


def _raw(tensor: Tensor) -> memoryview:
    return tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data
