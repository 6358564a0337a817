"""Small servers that misbehave, over real sockets: errors arrive as themselves, no corrupt answer does."""

import asyncio
import base64
import json
from contextlib import asynccontextmanager

import grpc
import numpy as np
import pytest
import trustme

from student_trainer.teachers import Options, TeacherUrlError, connect, key_for
from teacher_api import errors
from teacher_api.errors import (
    TABLE,
    BudgetSpentError,
    DeadlineExceededError,
    FingerprintMismatchError,
    InternalError,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    TeacherError,
    TooLargeError,
)
from teacher_api.messages import Answer, Instance, Outputs, Usage, Want, answer_to_proto
from teacher_api.v1 import teacher_pb2 as pb
from teacher_api.v1 import teacher_pb2_grpc as pb_grpc

ASKED = [Instance("text")]
WANT = Want()
GOOD = {"dtype": "float32", "shape": [2], "data": base64.b64encode(bytes(8)).decode()}


class Service(pb_grpc.TeacherServiceServicer):
    """Does what it is told to."""

    def __init__(self, act) -> None:
        self._act = act

    async def Predict(self, request, context):
        return await self._act(request, context)

    async def StreamPredict(self, requests, context):
        async for request in requests:
            for response in await self._act(request, context):
                response.id = response.id or request.id
                yield response

    async def GetUsage(self, request, context):
        return await self._act(request, context)

    async def Describe(self, request, context):
        return await self._act(request, context)


@asynccontextmanager
async def grpc_teacher(act, *, server_credentials=None, scheme="grpc", **options):
    server = grpc.aio.server()
    pb_grpc.add_TeacherServiceServicer_to_server(Service(act), server)
    if server_credentials:
        port = server.add_secure_port("localhost:0", server_credentials)
    else:
        port = server.add_insecure_port("localhost:0")
    await server.start()
    teacher = connect(f"{scheme}://localhost:{port}", Options(**options))
    try:
        yield teacher
    finally:
        await teacher.close()
        await server.stop(0)


@asynccontextmanager
async def http_teacher(status: int, body: bytes, *, sent: int | None = None, reply=True, tls=None, **options):
    """One answer for every request; the requests' heads are kept in `teacher.heads`."""
    heads: list[bytes] = []
    ended = asyncio.Event()

    async def serve(reader, writer):
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        if reply:
            head = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
            writer.write(head % (status, len(body)) + body[:sent])
            await writer.drain()
        else:
            await ended.wait()
        writer.close()

    server = await asyncio.start_server(serve, "localhost", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    teacher = connect(f"http{'s' if tls else ''}://localhost:{port}", Options(**options))
    teacher.heads = heads  # type: ignore[attr-defined]
    try:
        yield teacher
    finally:
        ended.set()
        await teacher.close()
        server.close()
        await server.wait_closed()


def full(kind: type[TeacherError]) -> TeacherError:
    return kind("what", field="instances[3].text", value="é", limit=7, retry_after_ms=1500)


def told(error: TeacherError) -> object:
    return type(error), error.message, error.field, error.value, error.limit, error.retry_after_ms


@pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.code)
async def test_each_error_arrives_over_grpc(kind):
    async def act(request, context):
        detail = errors.error_to_proto(full(kind)).SerializeToString()
        code = grpc.StatusCode[TABLE[kind].grpc_code]
        await context.abort(code, "ignored", trailing_metadata=(("teacher-error-bin", detail),))

    async with grpc_teacher(act) as teacher:
        with pytest.raises(kind) as caught:
            await teacher.predict(ASKED, WANT, "")
    assert told(caught.value) == told(full(kind))


@pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.code)
async def test_bare_codes_arrive_over_grpc(kind):
    async def act(request, context):
        await context.abort(
            grpc.StatusCode[TABLE[kind].grpc_code], "why", trailing_metadata=(("teacher-error-bin", b"\xff"),)
        )

    async with grpc_teacher(act) as teacher:
        with pytest.raises(TeacherError) as caught:
            await teacher.usage()
    # One code of gRPC stands for a full queue and a spent budget: without our own word, for the first.
    assert type(caught.value) is (OverloadedError if kind is BudgetSpentError else kind)
    assert "why" in str(caught.value)


@pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.code)
async def test_each_error_arrives_over_http(kind):
    names = ("message", "field", "value", "limit", "retry_after_ms")
    body = {"error": {"code": kind.code} | {name: getattr(full(kind), name) for name in names}}
    async with http_teacher(TABLE[kind].http_status, json.dumps(body).encode()) as teacher:
        with pytest.raises(kind) as caught:
            await teacher.predict(ASKED, WANT, "")
    assert told(caught.value) == told(full(kind))


@pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.code)
@pytest.mark.parametrize("body", [b"<html>no</html>", b'{"detail":"Not Found"}', b'{"error":"no"}', b"[]"])
async def test_bare_statuses_arrive_over_http(kind, body):
    async with http_teacher(TABLE[kind].http_status, body) as teacher:
        with pytest.raises(TeacherError) as caught:
            await teacher.usage()
    assert type(caught.value) is kind


@pytest.mark.parametrize("url", ["grpc://localhost:1", "http://localhost:1"])
async def test_nobody_there_is_not_ready(url):
    teacher = connect(url)
    with pytest.raises(NotReadyError):
        await teacher.describe()
    await teacher.close()


async def test_a_teacher_that_hangs_is_left_at_the_deadline():
    async def act(request, context):
        await asyncio.Future()

    async with grpc_teacher(act, timeout_s=0.2) as teacher:
        with pytest.raises(DeadlineExceededError):
            await teacher.predict(ASKED, WANT, "")
    async with http_teacher(200, b"", reply=False, timeout_s=0.2) as teacher:
        with pytest.raises(DeadlineExceededError):
            await teacher.predict(ASKED, WANT, "")


async def test_a_torn_answer_is_not_ready_an_empty_one_an_error():
    async with http_teacher(200, b"{}" * 99, sent=9) as teacher:
        with pytest.raises(NotReadyError):
            await teacher.usage()
    async with http_teacher(200, b"") as teacher:
        with pytest.raises(InternalError):
            await teacher.usage()


async def test_what_cannot_travel_is_an_invalid_request():
    async def act(request, context):
        raise AssertionError("it travelled")

    surrogate, below = ([Instance("\ud800")], WANT, ""), (ASKED, Want(layers=(-1,)), "")
    async with grpc_teacher(act) as teacher:
        for question in (surrogate, below):
            with pytest.raises(InvalidRequestError):
                await teacher.predict(*question)
    async with http_teacher(500, b"") as teacher:
        with pytest.raises(InvalidRequestError):
            await teacher.predict(*surrogate)  # JSON can say -1: the server refuses it


async def test_messages_beyond_the_limit_are_too_large_not_busy():
    async def act(request, context):
        return pb.PredictResponse(fingerprint="x" * 9 * 2**20)

    async with grpc_teacher(act) as teacher:
        with pytest.raises(TooLargeError):
            await teacher.predict(ASKED, WANT, "")
        with pytest.raises(TooLargeError):
            await teacher.predict([Instance("x" * 9 * 2**20)], WANT, "")


def response(*answers: pb.Answer, fingerprint: str = "mine") -> pb.PredictResponse:
    return pb.PredictResponse(answers=answers, fingerprint=fingerprint)


INTACT = answer_to_proto(Answer(Outputs(np.zeros(2, np.float32))))
TORN = pb.Answer(outputs=pb.Outputs(logits=pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[2], data=b"1234567")))


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (response(INTACT, fingerprint="other"), FingerprintMismatchError),
        (response(), InternalError),
        (response(INTACT, INTACT), InternalError),
        (response(TORN), InternalError),
    ],
)
async def test_a_wrong_answer_over_grpc_is_an_error(sent, kind):
    async def act(request, context):
        return sent

    async with grpc_teacher(act) as teacher:
        with pytest.raises(kind):
            await teacher.predict(ASKED, WANT, "mine")


WHOLE = Want(layers=(1,), pooling="none")  # is asked for in a stream
REFUSAL = errors.error_to_proto(full(errors.OverloadedError))


def part(*answers: pb.Answer, **fields) -> pb.StreamPredictResponse:
    return pb.StreamPredictResponse(answers=answers or [INTACT], **{"fingerprint": "mine"} | fields)


async def test_answers_come_in_parts_and_the_stream_stays_open():
    peers = set()

    async def act(request, context):
        peers.add(id(context))
        return [part() for _ in request.question.instances]

    async with grpc_teacher(act) as teacher:
        for count in (3, 1):
            assert len(await teacher.predict(ASKED * count, WHOLE, "mine")) == count
    assert len(peers) == 1


async def test_an_error_in_a_stream_is_the_questions_and_the_next_one_is_answered():
    answers = [[part(), pb.StreamPredictResponse(error=REFUSAL)], [part(), part()]]

    async def act(request, context):
        return answers.pop(0)

    async with grpc_teacher(act) as teacher:
        with pytest.raises(errors.OverloadedError) as caught:
            await teacher.predict(ASKED * 2, WHOLE, "mine")
        assert told(caught.value) == told(full(errors.OverloadedError))
        assert len(await teacher.predict(ASKED * 2, WHOLE, "mine")) == 2


async def test_a_stream_that_ends_is_not_ready_one_that_hangs_is_left_at_the_deadline():
    async def end(request, context):
        await context.abort(grpc.StatusCode.UNAVAILABLE, "going")

    async def hang(request, context):
        await asyncio.Future()

    async with grpc_teacher(end) as teacher:
        for _ in range(2):
            with pytest.raises(NotReadyError):
                await teacher.predict(ASKED, WHOLE, "mine")
    async with grpc_teacher(hang, timeout_s=0.2) as teacher:
        with pytest.raises(DeadlineExceededError):
            await teacher.predict(ASKED, WHOLE, "mine")


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        ([part(id=7)], InternalError),
        ([part(), part(id=7)], InternalError),
        ([part(INTACT, INTACT)], InternalError),
        ([part(TORN)], InternalError),
        ([part(fingerprint="other")], FingerprintMismatchError),
    ],
)
async def test_a_wrong_answer_in_a_stream_is_an_error(parts, kind):
    async def act(request, context):
        return parts

    async with grpc_teacher(act) as teacher:
        with pytest.raises(kind):
            await teacher.predict(ASKED, WHOLE, "mine")
            await teacher.predict(ASKED, WHOLE, "mine")  # where what came too much is found


def answered(logits: object, **changes: object) -> dict[str, object]:
    answer = {"outputs": {"logits": logits, "hidden": {}, "mask": None}, "cached": False, "charged": 1}
    return {"fingerprint": "mine", "answers": [answer | {"error": None} | changes]}


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (answered(GOOD) | {"fingerprint": "other"}, FingerprintMismatchError),
        (answered(GOOD) | {"answers": []}, InternalError),
        (answered(GOOD) | {"answers": None}, InternalError),
        ({}, InternalError),
        ([], InternalError),
        (answered(GOOD | {"data": "AAAA"}), InternalError),
        (answered(GOOD | {"data": "A" * 11}), InternalError),
        (answered(GOOD | {"data": "not base64!"}), InternalError),
        (answered(GOOD | {"data": 7}), InternalError),
        (answered(GOOD | {"shape": [3]}), InternalError),
        (answered(GOOD | {"shape": [-2]}), InternalError),
        (answered(GOOD | {"shape": "2"}), InternalError),
        (answered(GOOD | {"dtype": "float64"}), InternalError),
        (answered(GOOD | {"dtype": "unspecified"}), InternalError),
        (answered(GOOD | {"dtype": None}), InternalError),
        (answered([0.0, 0.0]), InternalError),
        (answered(GOOD, charged=-1), InternalError),
        (answered(GOOD, error={"no": "such field"}), InternalError),
        (answered(None, outputs={"hidden": {"x": GOOD}}), InternalError),
    ],
)
async def test_a_wrong_answer_over_http_is_an_error(sent, kind):
    async with http_teacher(200, json.dumps(sent).encode()) as teacher:
        with pytest.raises(kind):
            await teacher.predict(ASKED, WANT, "mine")


async def test_an_intact_answer_arrives_over_http():
    async with http_teacher(200, json.dumps(answered(GOOD)).encode()) as teacher:
        [answer] = await teacher.predict(ASKED, WANT, "mine")
    assert answer.outputs is not None
    np.testing.assert_array_equal(answer.outputs.logits, np.zeros(2, np.float32), strict=True)


async def test_the_key_travels_and_is_not_shown(monkeypatch):
    seen = []

    async def act(request, context):
        seen.extend(value for name, value in context.invocation_metadata() if name == "authorization")
        return pb.GetUsageResponse()

    monkeypatch.setenv("STUDENT_TEACHER_API_KEY", "sesame")
    assert "sesame" not in repr(Options())
    async with grpc_teacher(act) as teacher:
        assert await teacher.usage() == Usage()
    assert seen == ["Bearer sesame"]
    async with http_teacher(503, b"") as teacher:
        with pytest.raises(NotReadyError):
            await teacher.usage()
        assert b"\r\nauthorization: bearer sesame\r\n" in teacher.heads[0].lower()


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("grpc://small:50051", "one"),
        ("https://large:443", "two="),
        ("https://large:443/", "two="),
        ("grpc://small:50051+spare:50051", "one"),
        ("http://small:8000", ""),
        ("grpc://stranger:50051", ""),
        ("local:small:50051", ""),
    ],
)
def test_each_host_is_shown_its_own_key(url, key):
    assert key_for(url, " Small:50051=one, large:443=two=,spare:50051=one") == key
    assert key_for(url, "sesame=\n") == ("" if url.startswith("local:") else "sesame=")


@pytest.mark.parametrize(
    "given",
    [
        *("small=K1,large=K2", "K0,large:2=K2", "large:2=K2,K0", "grpc://large:2=K2", "large:2=,small:1=K1"),
        *("small:1=ab,cd", "large:2=K2,"),
    ],
)
def test_a_broken_list_of_keys_is_shown_to_nobody(given):
    with pytest.raises(
        TeacherUrlError, match="no key and no list of keys; give KEY, or host:port=KEY"
    ) as refusal:
        key_for("grpc://large:2", given)
    assert given not in str(refusal.value)


@pytest.mark.parametrize("url", ["grpc://a:1+b:2", "grpc://a:1+c:3"])
def test_servers_of_one_teacher_have_one_key(url):
    """Another one's is not shown to a server that has its own, or none."""
    with pytest.raises(TeacherUrlError, match="one key for each of them"):
        key_for(url, "a:1=one,b:2=two")


async def test_tls_needs_the_right_authority(tmp_path):
    import ssl

    ours, theirs = trustme.CA(), trustme.CA()
    trusted, foreign = tmp_path / "ours.pem", tmp_path / "theirs.pem"
    ours.cert_pem.write_to_path(trusted)
    theirs.cert_pem.write_to_path(foreign)
    issued = ours.issue_cert("localhost")
    key, chain = issued.private_key_pem.bytes(), b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(key, chain)])
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    issued.configure_cert(tls)

    async def act(request, context):
        return pb.GetUsageResponse(asked=5)

    def over_grpc(authority):
        return grpc_teacher(act, server_credentials=credentials, scheme="grpcs", ca_file=authority)

    def over_http(authority):
        body = json.dumps(dict.fromkeys(Usage().own(), 5) | {"keys": []}).encode()
        return http_teacher(200, body, tls=tls, ca_file=authority)

    for opened in (over_grpc, over_http):
        async with opened(trusted) as teacher:
            assert (await teacher.usage()).asked == 5
        async with opened(foreign) as teacher:
            with pytest.raises(NotReadyError):
                await teacher.usage()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:50051",
        "ftp://localhost:1",
        "GRPC",
        "grpc:",
        "grpc://",
        "grpc://localhost",
        "grpc://localhost:0",
        "grpc://localhost:port",
        "grpc://localhost:70000",
        "grpc://localhost:1+",
        "grpc://localhost:1+localhost",
        "grpc://localhost:1++localhost:2",
        "http://localhost:80+localhost:81",
        "http://localhost:80/path",
        "http://localhost:80?a=b",
        "https://key@localhost:443",
        "http://[::1:80",
        "local:",
    ],
)
def test_malformed_urls_are_refused_with_the_forms(url):
    with pytest.raises(TeacherUrlError) as caught:
        connect(url)
    assert repr(url) in str(caught.value)
    assert "grpcs://host:port" in str(caught.value)


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(TeacherUrlError, match="nothing-here"):
        connect(f"local:{tmp_path}/nothing-here")
    with pytest.raises(TeacherUrlError, match=r"ca\.pem"):
        connect("grpcs://localhost:1", Options(ca_file=tmp_path / "ca.pem"))
