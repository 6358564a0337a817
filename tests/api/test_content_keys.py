"""Content keys: each different question has another key, today and in the next version."""

from dataclasses import replace

import pytest
from contract_values import INSTANCES, TEXTS, WANTS
from hypothesis import given
from hypothesis import strategies as st

from teacher_api.identity import ContentKeys, digest, fingerprint
from teacher_api.messages import Instance, Want

KEYS = ContentKeys("teacher", 128, Want())


def test_keys_are_stable():
    """Kept answers are found by these keys: a change here throws away what users have paid for."""
    keys = ContentKeys("f" * 64, 128, Want(True, (2, 4), "mean", "float16"))
    literal = "14afbf0733ab6243296e293960f22fcb9165849df15ea164c7981a429a34abda"
    assert keys.of(Instance("A premise.", "A hypothesis: é😀")).hex() == literal
    assert (
        KEYS.of(Instance("text")).hex() == "56d908b467974b1891cc90cdbd7e467c3fa86e36f34fd4ed22104a1398ce1e6c"
    )
    assert fingerprint([b"a", b"bc"]) == "9a8acca1b6c6c0befd3fbc756aed625da998c998f7252e738c4ef061906b9b21"


@given(st.lists(INSTANCES, min_size=2, max_size=2, unique=True))
def test_different_instances_have_different_keys(instances):
    first, second = instances
    assert KEYS.of(first) != KEYS.of(second)
    assert KEYS.of(first) == KEYS.of(replace(first))


@given(TEXTS, st.integers(0, 12), st.integers(0, 12))
def test_moving_characters_between_text_and_pair_gives_another_key(text, one, other):
    splits = {(text[:cut], text[cut:]) for cut in (one, other)}
    keys = {KEYS.of(Instance(*split)) for split in splits} | {KEYS.of(Instance(text))}
    assert len(keys) == len(splits) + 1


@given(st.lists(st.binary(max_size=6), max_size=4), st.lists(st.binary(max_size=6), max_size=4))
def test_digests_are_of_parts_not_of_their_concatenation(one, other):
    assert (digest(one) == digest(other)) == (one == other)


def test_a_memoryview_of_wide_items_counts_in_bytes():
    import array

    numbers = array.array("d", [1.0, 2.0])
    assert digest([memoryview(numbers)]) == digest([numbers.tobytes()])


@given(st.lists(WANTS, min_size=2, max_size=2, unique=True))
def test_each_field_of_what_is_wanted_matters(wants):
    first, second = (ContentKeys("teacher", 128, want).of(Instance("text")) for want in wants)
    assert first != second


@pytest.mark.parametrize("other", [ContentKeys("teachers", 128, Want()), ContentKeys("teacher", 64, Want())])
def test_teacher_and_maximum_length_matter(other):
    assert other.of(Instance("text")) != KEYS.of(Instance("text"))


@pytest.mark.parametrize("text", ["Text", "text ", "te\u0301xt", "t\u00e9xt", "\ud800"])
def test_texts_are_not_normalised(text):
    others = {"Text", "text ", "te\u0301xt", "t\u00e9xt", "text", "\ud800"} - {text}
    assert KEYS.of(Instance(text)) not in {KEYS.of(Instance(other)) for other in others}
