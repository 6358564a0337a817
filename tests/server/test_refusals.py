"""Bad input is refused by name, with field, value and limit, the same over both faces; nothing breaks."""

import gzip
from typing import Any

import httpx
import pytest
from faces import OpenFace, texts
from processes import ServerProcess

from teacher_api.errors import FingerprintMismatchError, InvalidRequestError, TeacherError
from teacher_api.messages import Instance, Want

NO_LOGITS = Want(logits=False)

# what is asked, and what is said of it: field, value, limit
REFUSED: dict[str, tuple[dict[str, Any], tuple[str, str, str]]] = {
    "no instances": ({"instances": []}, ("instances", "0", "1")),
    "too many instances": ({"instances": texts("a") * 129}, ("instances", "129", "128")),
    "too many characters": (
        {"instances": [*texts("a"), Instance("a" * 50_001, "b" * 50_000)]},
        ("instances[1]", "100001", "100000"),
    ),
    "nothing wanted": ({"instances": texts("a"), "want": NO_LOGITS}, ("want", "", "")),
    "unknown layer": (
        {"instances": texts("a"), "want": Want(layers=(0, 4))},
        ("want.layers[1]", "4", "0 to 3"),
    ),
    "layer twice": ({"instances": texts("a"), "want": Want(layers=(1, 1))}, ("want.layers[1]", "1", "")),
    "no token ids": ({"instances": [Instance(token_ids=())]}, ("instances[0].tokens.ids", "0", "1 to 128")),
    "too many token ids": (
        {"instances": [Instance(token_ids=(7,) * 129)]},
        ("instances[0].tokens.ids", "129", "1 to 128"),
    ),
    "type ids too few": (
        {"instances": [Instance(token_ids=(7, 8), type_ids=(0,))]},
        ("instances[0].tokens.type_ids", "1", "2"),
    ),
}


@pytest.mark.parametrize(("path", "status"), [("/v1/predict", 422), ("/v2/models/any/infer", 400)])
def test_a_compressed_body_is_refused_by_its_name(server: ServerProcess, path: str, status: int) -> None:
    body, headers = gzip.compress(b"{}"), {"content-encoding": "gzip"}
    response = httpx.post(server.url + path, content=body, headers=headers)
    assert response.status_code == status
    assert all(word in response.text for word in ("content-encoding", "gzip", "send them as they are"))


@pytest.mark.parametrize("case", REFUSED)
async def test_refusal_names_field_value_and_limit(
    server: ServerProcess, open_face: OpenFace, case: str
) -> None:
    question, (field, value, limit) = REFUSED[case]
    face = open_face(server)
    with pytest.raises(InvalidRequestError) as refused:
        await face.ask(**question, vocabulary_hash=await vocabulary_of(server))
    assert (refused.value.field, refused.value.value, refused.value.limit) == (field, value, limit)


async def test_other_fingerprint_is_refused(server: ServerProcess, open_face: OpenFace) -> None:
    with pytest.raises(FingerprintMismatchError) as refused:
        await open_face(server).ask(texts("a"), fingerprint="f" * 64)
    assert refused.value.limit == server.fingerprint
    assert await open_face(server).ask(texts("a"), fingerprint=server.fingerprint)


async def test_token_ids_need_the_vocabulary(server: ServerProcess, open_face: OpenFace) -> None:
    for foreign in ("", "0" * 64):
        with pytest.raises(InvalidRequestError) as refused:
            await open_face(server).ask([Instance(token_ids=(101, 102))], vocabulary_hash=foreign)
        assert refused.value.field == "vocabulary_hash"


async def test_unknown_token_id_fails_alone(server: ServerProcess, open_face: OpenFace) -> None:
    mixed = [Instance(token_ids=(101, 102)), Instance(token_ids=(101, 2**31)), Instance("text")]
    good, bad, text = await open_face(server).ask(mixed, vocabulary_hash=await vocabulary_of(server))
    assert (good["error"], text["error"]) == (None, None)
    assert (bad["error"], bad["field"]) == ("invalid_request", "instances[1].tokens.ids")


async def test_empty_text_is_a_question(server: ServerProcess, open_face: OpenFace) -> None:
    empty, pair = await open_face(server).ask([Instance(""), Instance("", "")])
    assert len(empty["logits"]) == len(pair["logits"]) == 3
    assert empty["logits"] != pair["logits"]


async def test_tokens_and_text_agree(server: ServerProcess, open_face: OpenFace) -> None:
    """101 and 102 are [CLS] and [SEP] of MiniLM's vocabulary: the empty text."""
    tokens = [Instance(token_ids=(101, 102))]
    (by_ids,) = await open_face(server).ask(tokens, vocabulary_hash=await vocabulary_of(server))
    (by_text,) = await open_face(server).ask(texts(""))
    assert by_ids["logits"] == pytest.approx(by_text["logits"], abs=1e-6)


BODIES: dict[str, tuple[bytes, str]] = {
    "not JSON": (b'{"inst', ""),
    "not UTF-8": (b"\xff\xfe{}", ""),
    "too deep": (b"[" * 200_000, ""),
    "a lone surrogate": (b'{"instances": [{"text": "a\\ud800"}]}', "instances[0].text"),
    "a lone surrogate in a pair": (
        b'{"instances": [{"text": "", "text_pair": "\\udfff"}]}',
        "instances[0].text_pair",
    ),
    "a lone surrogate as a name": (b'{"instances": [{"text": "a"}], "\\ud800": 1}', None),
    "a huge number": (b'{"instances": [{"text": "a"}], "timeout_ms": ' + b"9" * 5000 + b"}", ""),
    "not a number": (b'{"instances": [{"text": "a"}], "timeout_ms": NaN}', "timeout_ms"),
    "many unknown names": (b'{"instances": [{"text": "a", "b": 1, "c": 2, "d": 3, "e": 4}]}', "instances[0]"),
    "an unknown name": (b'{"instances": [{"text": "a"}], "wants": {}}', "wants"),
    "both kinds": (b'{"instances": [{"text": "a", "token_ids": [1]}]}', "instances[0]"),
    "a negative token id": (b'{"instances": [{"token_ids": [-1]}]}', "instances[0].token_ids[0]"),
    "a number for a text": (b'{"instances": [{"text": 1}]}', "instances[0].text"),
    "an unknown pooling": (b'{"instances": [{"text": "a"}], "want": {"pooling": "max"}}', "want.pooling"),
    "nothing": (b"", ""),
}


@pytest.mark.parametrize("case", BODIES)
def test_malformed_json_is_refused(server: ServerProcess, case: str) -> None:
    body, field = BODIES[case]
    headers = {"content-type": "application/json"}
    response = httpx.post(f"{server.url}/v1/predict", content=body, headers=headers)
    assert response.status_code == 422, response.text
    error = response.json()["error"]
    assert error["code"] == "invalid_request"
    assert error["message"]
    assert field is None or error["field"] == field


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/none", 404), ("PUT", "/v1/predict", 405)]
)
def test_unknown_route_has_the_same_shape(server: ServerProcess, method: str, path: str, status: int) -> None:
    response = httpx.request(method, server.url + path)
    assert response.status_code == status
    assert response.json()["error"]["code"] == "invalid_request"


async def vocabulary_of(server: ServerProcess) -> str:
    async with httpx.AsyncClient() as client:
        hash_: str = (await client.get(f"{server.url}/v1/describe")).json()["vocabulary_hash"]
        return hash_


async def test_every_refusal_is_of_the_table(server: ServerProcess, open_face: OpenFace) -> None:
    """A call cannot fail but by a TeacherError: faces.py asserts that the error travelled."""
    with pytest.raises(TeacherError):
        await open_face(server).ask([])
