"""Messages travel to protobuf and back unchanged; what cannot be understood is refused."""

import pytest
from contract_values import ANSWERS, DESCRIPTIONS, INSTANCES, TEXTS, USAGES, WANTS, bits, told
from hypothesis import given
from hypothesis import strategies as st

from teacher_api import messages
from teacher_api.errors import InvalidRequestError
from teacher_api.v1 import teacher_pb2 as pb


def over_the_wire(proto):
    return type(proto).FromString(proto.SerializeToString())


@given(INSTANCES)
def test_instances(instance):
    proto = over_the_wire(messages.instance_to_proto(instance))
    assert messages.instance_from_proto(proto, "instances[0]") == instance


@given(WANTS)
def test_wants(want):
    assert messages.want_from_proto(over_the_wire(messages.want_to_proto(want))) == want


@given(ANSWERS)
def test_answers(answer):
    back = messages.answer_from_proto(over_the_wire(messages.answer_to_proto(answer)))
    assert (back.cached, back.charged, told(back.error)) == (
        answer.cached,
        answer.charged,
        told(answer.error),
    )
    assert bits(back.outputs) == bits(answer.outputs)


@given(DESCRIPTIONS)
def test_descriptions(description):
    proto = over_the_wire(messages.description_to_proto(description))
    assert messages.description_from_proto(proto) == description


@given(USAGES)
def test_usages(usage):
    assert messages.usage_from_proto(over_the_wire(messages.usage_to_proto(usage))) == usage


@given(st.lists(INSTANCES, max_size=4), WANTS, TEXTS)
def test_requests(instances, want, fingerprint):
    proto = over_the_wire(messages.request_to_proto(instances, want, fingerprint))
    assert [messages.instance_from_proto(one, "") for one in proto.instances] == instances
    assert (messages.want_from_proto(proto.want), proto.fingerprint) == (want, fingerprint)


def test_an_empty_pair_is_not_a_missing_one():
    single, pair = messages.Instance("a"), messages.Instance("a", "")
    assert messages.instance_to_proto(single) != messages.instance_to_proto(pair)


def test_text_and_token_ids_together_are_refused():
    with pytest.raises(InvalidRequestError) as caught:
        messages.instance_from_proto(pb.Instance(text="a", tokens=pb.TokenIds(ids=[1])), "instances[7]")
    assert caught.value.field == "instances[7]"


@pytest.mark.parametrize(
    ("want", "field"),
    [
        (pb.Want(layers=[1]), "want.pooling"),
        (pb.Want(logits=True, pooling=9), "want.pooling"),  # type: ignore[arg-type]
        (pb.Want(logits=True, hidden_dtype=pb.DATA_TYPE_UINT8), "want.hidden_dtype"),
        (pb.Want(logits=True, hidden_dtype=99), "want.hidden_dtype"),  # type: ignore[arg-type]
    ],
)
def test_wants_that_are_not_understood_are_refused(want, field):
    with pytest.raises(InvalidRequestError) as caught:
        messages.want_from_proto(want)
    assert caught.value.field == field


def test_characters_are_code_points_of_both_texts():
    assert messages.Instance("a😀", "é").characters == 3
