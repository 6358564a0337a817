"""Answers as the protocol's tensors: one for each output, all texts in it."""

from collections.abc import Sequence

import numpy as np

from teacher_api.errors import TooLargeError
from teacher_api.messages import Answer, Outputs, Want
from teacher_api.open_inference import inference_pb2 as pb
from teacher_api.tensors import Array

DATATYPES = {"float32": "FP32", "float16": "FP16", "uint8": "UINT8"}
NUMPY = {name: np.dtype(dtype).newbyteorder("<") for dtype, name in DATATYPES.items()}


def tensors_of(
    answers: Sequence[Answer], want: Want, names: Sequence[str], max_bytes: int
) -> dict[str, Array]:
    """The named outputs, in their order.

    Raises:
        TeacherError: a text failed, and with it the request: the protocol knows no other way.
        TooLargeError: padded to the longest text, the hidden states would pass max_bytes.
    """
    outputs = [_given(answer) for answer in answers]
    _check_size(outputs, want, max_bytes)
    makers = {"logits": _logits, "hidden_states": _hidden, "mask": _mask}
    return {name: makers[name](outputs, want) for name in names}


def write(tensors: dict[str, Array]) -> pb.ModelInferResponse:
    """A response that holds these."""
    kind = pb.ModelInferResponse.InferOutputTensor
    described = [
        kind(name=name, datatype=DATATYPES[array.dtype.name], shape=array.shape)
        for name, array in tensors.items()
    ]
    raw = [array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes() for array in tensors.values()]
    return pb.ModelInferResponse(outputs=described, raw_output_contents=raw)


def _given(answer: Answer) -> Outputs:
    if answer.error is not None:
        raise answer.error
    assert answer.outputs is not None
    return answer.outputs


def _check_size(outputs: Sequence[Outputs], want: Want, max_bytes: int) -> None:
    size = len(outputs) * max(one.nbytes for one in outputs)
    if size > max_bytes:
        raise TooLargeError("the answers are too large: ask fewer texts at once", value=size, limit=max_bytes)


def _logits(outputs: Sequence[Outputs], want: Want) -> Array:
    """[n, classes]"""
    return np.stack([one.logits for one in outputs if one.logits is not None])


def _hidden(outputs: Sequence[Outputs], want: Want) -> Array:
    """[n, layers, hidden], or [n, layers, tokens, hidden] with zeros after each text's last token."""
    stacked = [np.stack([one.hidden[layer] for layer in want.layers]) for one in outputs]
    return np.stack(stacked) if want.pooling != "none" else _padded(stacked, axis=1)


def _mask(outputs: Sequence[Outputs], want: Want) -> Array:
    """[n, tokens]"""
    return _padded([one.mask for one in outputs if one.mask is not None], axis=0)


def _padded(arrays: Sequence[Array], axis: int) -> Array:
    """All to the longest along an axis, which may differ."""
    longest = max(array.shape[axis] for array in arrays)
    shape = list(arrays[0].shape)
    shape[axis] = longest
    padded = np.zeros((len(arrays), *shape), arrays[0].dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[(slice(None),) * axis + (slice(array.shape[axis]),)] = array
    return padded
