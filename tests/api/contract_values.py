"""Hypothesis strategies for the contract's messages."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from teacher_api.errors import TABLE, TeacherError
from teacher_api.messages import Answer, Description, Instance, Outputs, Usage, Want

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
UINT32 = st.integers(0, 2**32 - 1)
UINT64 = st.integers(0, 2**64 - 1)
IDS = st.lists(UINT32, max_size=4).map(tuple)

INSTANCES = st.one_of(
    st.builds(Instance, TEXTS, st.none() | TEXTS),
    st.builds(Instance, token_ids=IDS, type_ids=IDS),
)
WANTS = st.builds(
    Want,
    st.booleans(),
    st.lists(st.integers(0, 24), max_size=4, unique=True).map(tuple),
    st.sampled_from(["cls", "mean", "none"]),
    st.sampled_from(["float32", "float16"]),
    st.lists(st.integers(1, 24), max_size=3, unique=True).map(tuple),
)
ERRORS = st.builds(
    lambda kind, message, **named: kind(message, **named),
    st.sampled_from(list(TABLE)),
    TEXTS,
    field=TEXTS,
    value=TEXTS,
    limit=TEXTS,
    retry_after_ms=UINT32,
)


def _arrays(dtype, dims):
    return arrays.arrays(np.dtype(dtype), arrays.array_shapes(min_dims=dims, max_dims=dims, max_side=4))


OUTPUTS = st.builds(
    Outputs,
    st.none() | _arrays("float32", 1),
    st.dictionaries(st.integers(0, 24), _arrays("float32", 1) | _arrays("float16", 2), max_size=3),
    st.none() | _arrays("uint8", 1),
    st.dictionaries(st.integers(1, 24), _arrays("float32", 3) | _arrays("float16", 3), max_size=2),
)
ANSWERS = st.builds(Answer, st.none() | OUTPUTS, st.booleans(), UINT32, st.none() | ERRORS)
DESCRIPTIONS = st.builds(
    Description,
    name=TEXTS,
    fingerprint=TEXTS,
    labels=st.lists(TEXTS, max_size=3).map(tuple),
    vocabulary_hash=TEXTS,
    max_length=UINT32,
    layers=UINT32,
    hidden_size=UINT32,
    intermediate_size=UINT32,
    parameters=UINT64,
    dtype=TEXTS,
    poolings=st.sampled_from([("cls", "mean", "none"), ("cls",), ()]),
    max_instances=UINT32,
    max_characters=UINT32,
    attention_heads=UINT32,
)
COUNTS = (UINT64, UINT64, UINT64, UINT64, UINT64, st.none() | UINT64)
CHARGES = (TEXTS, TEXTS, UINT64, UINT64, TEXTS, st.none() | UINT64, st.none() | TEXTS)
USAGES = st.builds(Usage, *COUNTS, *CHARGES, st.lists(st.builds(Usage, *COUNTS), max_size=2).map(tuple))


def bits(outputs: Outputs | None) -> object:
    """Outputs as a value that compares bit for bit."""
    if outputs is None:
        return None
    states = ({k: _bits(v) for k, v in one.items()} for one in (outputs.hidden, outputs.attentions))
    return _bits(outputs.logits), _bits(outputs.mask), *states


def _bits(array: np.ndarray | None) -> object:
    return None if array is None else (array.dtype.str, array.shape, array.tobytes())


def told(error: TeacherError | None) -> object:
    """An error as a value that compares by all that it says."""
    if error is None:
        return None
    return type(error), error.message, error.field, error.value, error.limit, error.retry_after_ms
