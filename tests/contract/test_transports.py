"""One contract over every transport, against a real server process and a plain transformers forward."""

import asyncio
import itertools
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from student_trainer.teachers import connect
from student_trainer.teachers.client import Client, Patience
from student_trainer.teachers.in_process import InProcessTeacher
from teacher_api.errors import FingerprintMismatchError, InvalidRequestError, TeacherError
from teacher_api.messages import Instance, Want

TOLERANCE = 1e-6  # of logits; of hidden states, in units of their largest value where that is above 1
HALF = 2.0**-11  # relative rounding of float16
LONG = "A sentence that goes on and on, well beyond the maximum length of the teacher. " * 12
INSTANCES = [
    Instance("A short one."),
    Instance(
        "No padding may leak into the answers of those who are shorter than their neighbours in a batch."
    ),
    Instance(""),
    Instance("Ünïcödé 😀 — 漢字 \x00 \t\n text, [SEP] and [MASK] written out"),
    Instance(LONG),
    Instance("Is this a paraphrase?", "This is a paraphrase."),
    Instance("A premise.", ""),
    Instance(LONG, "Only the longer text is cut."),
    Instance(LONG, LONG),
]
fresh = itertools.count()


def new_texts(count: int) -> list[Instance]:
    """Texts that nobody has asked about yet."""
    return [Instance(f"question number {next(fresh)}") for _ in range(count)]


class Plain:
    """One text at a time through transformers: what every answer must equal."""

    def __init__(self, folder) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._network = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        self.forward = cache(self._forward)

    def _forward(self, instance: Instance):
        """Logits [classes], and hidden states of each layer [tokens, hidden]."""
        # As lists: with bare strings, transformers takes an empty second text for none at all.
        pair = None if instance.text_pair is None else [instance.text_pair]
        encoded = self._tokenizer([instance.text], pair, truncation=True, max_length=128, return_tensors="pt")
        with torch.inference_mode():
            outputs = self._network(**encoded, output_hidden_states=True)
        return outputs.logits[0].numpy(), [states[0].numpy() for states in outputs.hidden_states]

    @cache  # noqa: B019
    def attentions(self, instance: Instance):
        """Of each layer [heads, tokens, tokens]."""
        encoded = self._tokenizer(instance.text, truncation=True, max_length=128, return_tensors="pt")
        self._network.set_attn_implementation("eager")
        with torch.inference_mode():
            outputs = self._network(**encoded, output_attentions=True)
        self._network.set_attn_implementation("sdpa")
        return [weights[0].numpy() for weights in outputs.attentions]


@pytest.fixture(scope="session")
def plain(folder) -> Plain:
    return Plain(folder)


POOLED = {
    "cls": lambda states: states[0],
    "mean": lambda states: states.mean(0),
    "none": lambda states: states,
}


def assert_equal(answers, instances, want, plain) -> None:
    """Every answer is what the plain forward gives, in the shape and dtype asked for."""
    assert len(answers) == len(instances)
    for answer, instance in zip(answers, instances, strict=True):
        assert answer.error is None
        logits, states = plain.forward(instance)
        assert (answer.outputs.logits is None) == (not want.logits)
        if want.logits:
            assert answer.outputs.logits.dtype == np.float32
            np.testing.assert_allclose(answer.outputs.logits, logits, rtol=0, atol=TOLERANCE)
        assert tuple(answer.outputs.hidden) == want.layers
        for layer, values in answer.outputs.hidden.items():
            expected = POOLED[want.pooling](states[layer])
            assert values.dtype == want.hidden_dtype
            rounding = HALF * np.abs(expected) if want.hidden_dtype == "float16" else 0
            bound = TOLERANCE * max(1, np.abs(expected).max()) + rounding
            assert values.shape == expected.shape
            assert (np.abs(values - expected) <= bound).all(), np.abs(values - expected).max()
        if want.layers and want.pooling == "none":
            assert (answer.outputs.mask == np.ones(len(states[0]), np.uint8)).all()
        else:
            assert answer.outputs.mask is None


async def test_attentions_travel(teachers, plain):
    """Whole, of the named layers; a layer that is none is refused by its place."""
    for teacher in teachers.values():
        client = await Client.over(teacher)
        heads = client.description.attention_heads
        want = Want(layers=(0,), pooling="none", attentions=(2, 1))
        for answer, instance in zip(await client.ask(INSTANCES[:2], want), INSTANCES[:2], strict=True):
            for layer, values in zip((2, 1), answer.outputs.attentions.values(), strict=True):
                assert values.shape == (heads, *answer.outputs.mask.shape * 2)
                assert np.abs(values - plain.attentions(instance)[layer - 1]).max() <= TOLERANCE
        (half,) = await client.ask(INSTANCES[:1], Want(attentions=(1,), hidden_dtype="float16"))
        assert half.outputs.attentions[1].dtype == np.float16
        with pytest.raises(InvalidRequestError, match=r"no such layer \(field want.attentions\[1\], value 0"):
            await teacher.predict(INSTANCES[:1], Want(attentions=(1, 0)), "")


async def test_every_transport_describes_the_same_teacher(teachers, server, folder):
    described = [await teacher.describe() for teacher in teachers.values()]
    description = described[0]
    assert described == [description] * len(described)
    assert description.fingerprint == server.fingerprint
    assert description.name == folder.name
    assert description.labels == ("no", "maybe", "yes")
    assert description.max_length == 128


WANTS = [
    Want(),
    Want(layers=(0, 1, 2)),
    Want(logits=False, layers=(2, 0), pooling="mean"),
    Want(layers=(1, 2), pooling="none"),
    Want(layers=(1,), pooling="cls", hidden_dtype="float16"),
    Want(layers=(2,), pooling="none", hidden_dtype="float16"),
]


@pytest.mark.parametrize("want", WANTS, ids=str)
async def test_answers_equal_a_plain_forward_in_a_mixed_batch(teacher, plain, want, server):
    answers = await teacher.predict(INSTANCES, want, server.fingerprint)
    assert_equal(answers, INSTANCES, want, plain)


async def test_answers_equal_a_plain_forward_alone(teacher, plain):
    for number, text in enumerate(instance.text for instance in INSTANCES):
        instance = Instance(f"{number} alone: {text}"[:90], "with a pair" if number % 2 else None)
        assert_equal(await teacher.predict([instance], Want(), ""), [instance], Want(), plain)


async def test_many_at_once_are_not_mixed_up(teacher, plain):
    askers = [[*new_texts(3), INSTANCES[index], *new_texts(index)] for index in range(len(INSTANCES))]
    answers = await asyncio.gather(*(teacher.predict(instances, Want(), "") for instances in askers))
    for given_answers, instances in zip(answers, askers, strict=True):
        assert_equal(given_answers, instances, Want(), plain)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
QUESTIONS = st.lists(st.builds(Instance, TEXTS, st.none() | TEXTS), min_size=1, max_size=12)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(instances=QUESTIONS, want=st.sampled_from(WANTS))
def test_any_texts_get_the_plain_forwards_answers_over_every_transport(
    instances, want, server, in_process, plain
):
    async def ask(teacher):
        answers = await teacher.predict(instances, want, server.fingerprint)
        if not isinstance(teacher, InProcessTeacher):
            await teacher.close()
        return answers

    async def ask_all():
        grpc, http = connect(f"grpc://{server.grpc}"), connect(server.url)
        return await asyncio.gather(ask(grpc), ask(http), ask(in_process))

    for answers in asyncio.run(ask_all()):
        assert_equal(answers, instances, want, plain)


TEXT = [Instance("text")]
REFUSED = {
    "no instance": ([], Want(), "", InvalidRequestError, "instances"),
    "too many": (TEXT * 129, Want(), "", InvalidRequestError, "instances"),
    "too long": ([*TEXT, Instance("x" * 100_001)], Want(), "", InvalidRequestError, "instances[1]"),
    "too long a pair": (
        [Instance("x" * 60_000, "y" * 40_001)],
        Want(),
        "",
        InvalidRequestError,
        "instances[0]",
    ),
    "nothing wanted": (TEXT, Want(logits=False), "", InvalidRequestError, "want"),
    "unknown layer": (TEXT, Want(layers=(1, 99)), "", InvalidRequestError, "want.layers[1]"),
    "layer twice": (TEXT, Want(layers=(1, 1)), "", InvalidRequestError, "want.layers[1]"),
    "token ids": ([Instance(token_ids=(101, 102))], Want(), "", InvalidRequestError, "vocabulary_hash"),
    "another teacher": (TEXT, Want(), "0" * 64, FingerprintMismatchError, "fingerprint"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_every_transport_refuses_with_the_same_error(teachers, case):
    instances, want, fingerprint, kind, field = REFUSED[case]
    told = set()
    for teacher in teachers.values():
        with pytest.raises(TeacherError) as caught:
            await teacher.predict(instances, want, fingerprint)
        error = caught.value
        assert (type(error), error.field) == (kind, field)
        told.add((error.message, error.value, error.limit, error.retry_after_ms))
    assert len(told) == 1


async def test_a_refused_question_costs_nothing(teacher):
    before = await teacher.usage()
    with pytest.raises(FingerprintMismatchError):
        await teacher.predict(TEXT, Want(), "0" * 64)
    assert await teacher.usage() == before


async def test_the_second_time_it_comes_from_the_cache_and_is_free(teacher):
    cached = not isinstance(teacher, InProcessTeacher)  # which has no cache: it charges all that it computes
    instances = new_texts(5)
    before = await teacher.usage()
    first = await teacher.predict(instances, Want(), "")
    again = await teacher.predict(instances, Want(), "")
    assert [(answer.cached, answer.charged) for answer in first] == [(False, 1)] * 5
    assert [(answer.cached, answer.charged) for answer in again] == [(cached, int(not cached))] * 5
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.outputs.logits, other.outputs.logits)
    after = await teacher.usage()
    assert after.asked - before.asked == 10
    assert after.charged - before.charged == (5 if cached else 10)
    assert after.cached - before.cached == (5 if cached else 0)
    assert after.failed == before.failed


async def test_other_outputs_of_the_same_text_are_another_question(teacher):
    [instance] = new_texts(1)
    for want in WANTS:
        [answer] = await teacher.predict([instance], want, "")
        assert (answer.cached, answer.charged) == (False, 1)


async def test_transports_to_one_server_share_its_cache(teachers):
    instances = new_texts(3)
    first = await teachers["grpc"].predict(instances, Want(layers=(1,)), "")
    again = await teachers["http"].predict(instances, Want(layers=(1,)), "")
    assert [answer.charged for answer in first + again] == [1, 1, 1, 0, 0, 0]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.outputs.hidden[1], other.outputs.hidden[1])


@pytest.mark.parametrize("scheme", ["grpc", "stream", "http"])
async def test_a_text_asked_twice_in_one_request_is_charged_once(teachers, scheme):
    [instance] = new_texts(1)
    answers = await teachers[scheme].predict([instance] * 4, Want(), "")
    assert sorted(answer.charged for answer in answers) == [0, 0, 0, 1]
    assert all(answer.cached != bool(answer.charged) for answer in answers)


async def test_a_client_asks_more_than_one_request_holds(teacher, plain):
    client = await Client.over(teacher, Patience(seconds=30))
    instances = [*new_texts(150), *INSTANCES]
    assert_equal(await client.ask(instances, Want(layers=(2,))), instances, Want(layers=(2,)), plain)
