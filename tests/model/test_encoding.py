"""Token ids are the tokenizer's own, truncated, never padded; foreign ids are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import MAX_LENGTH, make_tokenizer, save

from teacher_api.errors import InvalidRequestError
from teacher_api.messages import Instance, Want
from teacher_server.model import Model

words = st.lists(st.sampled_from(["the", "cat", "asks", "zebra", "<pad>", "[SEP]"]), max_size=50).map(
    " ".join
)


@pytest.fixture(scope="module")
def bert(tiny: Any) -> Model:
    return Model.load(str(tiny("bert")), max_length=MAX_LENGTH)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "mpnet", "roberta"])
def test_same_tokens_as_transformers(kind: str, tiny: Any, plain: Any) -> None:
    model, alone = Model.load(str(tiny(kind)), max_length=MAX_LENGTH), plain(tiny(kind))

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.tuples(words, st.none() | words), min_size=1, max_size=5))
    def check(pairs: list[tuple[str, str | None]]) -> None:
        encoded = model.encode([Instance(*pair) for pair in pairs])
        for pair, one in zip(pairs, encoded, strict=True):
            expected = alone.tokens(*pair)
            assert one.ids == expected["input_ids"][0].tolist()
            assert one.tokens == len(one.ids) <= MAX_LENGTH
            if "token_type_ids" in expected:
                assert one.type_ids == expected["token_type_ids"][0].tolist()
            else:
                assert one.type_ids == []

    check()


def test_padding_and_truncation_asked_for_by_the_folder_are_ignored(tmp_path: Path) -> None:
    folder = save(tmp_path / "padded", "bert")
    tokenizer = make_tokenizer("bert")
    tokenizer.backend_tokenizer.enable_padding(length=MAX_LENGTH, pad_token="[PAD]")
    tokenizer.backend_tokenizer.enable_truncation(5)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    encoded = Model.load(str(folder), max_length=MAX_LENGTH).encode(
        [Instance("the cat"), Instance("the " * 9)]
    )
    assert [one.tokens for one in encoded] == [4, 11]


def test_token_ids_are_taken_as_they_are(bert: Model) -> None:
    text, pair = Instance("the cat asks", "what it must"), Instance("a dog")
    (spelled, _) = bert.encode([text, pair])
    sent = Instance(token_ids=tuple(spelled.ids), type_ids=tuple(spelled.type_ids))
    mixed = bert.encode([sent, pair, text])
    assert mixed[0] == mixed[2] == spelled
    first, _, third = bert.run(mixed, [Want()] * 3)
    assert first.logits is not None and third.logits is not None
    np.testing.assert_allclose(first.logits, third.logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("ids", "types", "field", "value", "limit"),
    [
        ((), (), "instances[1].tokens.ids", "0", str(MAX_LENGTH)),
        ((5,) * (MAX_LENGTH + 1), (), "instances[1].tokens.ids", str(MAX_LENGTH + 1), str(MAX_LENGTH)),
        ((5, 18, 5), (), "instances[1].tokens.ids", "18", "17"),
        ((5, -1, 5), (), "instances[1].tokens.ids", "-1", "17"),
        ((5, 6), (0,), "instances[1].tokens.type_ids", "1", ""),
        ((5, 6), (0, 2), "instances[1].tokens.type_ids", "2", "1"),
    ],
)
def test_bad_token_ids_are_named(
    ids: tuple[int, ...], types: tuple[int, ...], field: str, value: str, limit: str, bert: Model
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        bert.encode([Instance("the cat"), Instance(token_ids=ids, type_ids=types)])
    assert (caught.value.field, caught.value.value, caught.value.limit) == (field, value, limit)


def test_type_ids_of_a_model_without_them(tiny: Any) -> None:
    model = Model.load(str(tiny("distilbert")), max_length=MAX_LENGTH)
    (zeros,) = model.encode([Instance(token_ids=(2, 5, 3), type_ids=(0, 0, 0))])
    assert zeros.type_ids == []
    with pytest.raises(InvalidRequestError, match="no such id"):
        model.encode([Instance(token_ids=(2, 5, 3), type_ids=(0, 1, 1))])


def test_a_lone_surrogate_is_the_callers_mistake(bert: Model) -> None:
    with pytest.raises(InvalidRequestError, match="not valid Unicode"):
        bert.encode([Instance("the \ud800 cat")])
