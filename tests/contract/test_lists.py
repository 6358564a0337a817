"""A teacher's servers as a list in its URL: what may stand there, who is asked, whose certificates count."""

import asyncio

import grpc
import pytest
import trustme

from student_trainer.teachers import Options, TeacherUrlError, connect
from student_trainer.teachers.over_grpc import _SERVICE_CONFIG
from student_trainer.teachers.replicas import one_teacher, target_of
from teacher_api.errors import TABLE, NotReadyError
from teacher_api.messages import Description, description_to_proto
from teacher_api.v1 import teacher_pb2 as pb
from teacher_api.v1 import teacher_pb2_grpc as pb_grpc

TEACHER = Description(
    name="one of several",
    fingerprint="f" * 64,
    labels=("no", "yes"),
    vocabulary_hash="v",
    max_length=128,
    layers=2,
    hidden_size=4,
    intermediate_size=16,
    parameters=100,
    dtype="float32",
)


@pytest.mark.parametrize(
    ("places", "target"),
    [
        (["teachers:50051"], "teachers:50051"),
        (["127.0.0.1:1", "127.0.0.2:2"], "ipv4:127.0.0.1:1,127.0.0.2:2"),
        (["[::1]:1", "[::1]:2"], "ipv6:[::1]:1,[::1]:2"),
        (["localhost:1", "127.0.0.2:2"], "ipv4:127.0.0.1:1,127.0.0.2:2"),
    ],
)
def test_places_are_one_target(places: list[str], target: str) -> None:
    assert target_of(places) == target


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("grpc://127.0.0.1:1+[::1]:2", "mixes IPv4 and IPv6"),
        ("grpc://127.0.0.1:1+nowhere.invalid:2", "cannot be looked up"),
    ],
)
def test_lists_that_cannot_be_reached_are_refused(url: str, fault: str) -> None:
    with pytest.raises(TeacherUrlError, match=fault):
        connect(url)


def test_an_absent_replica_is_only_told_of(caplog: pytest.LogCaptureFixture) -> None:
    told = {"a:1": NotReadyError("nobody there"), "b:2": TEACHER}
    assert one_teacher(told, listed=True) == TEACHER
    assert "no word from replica a:1: nobody there" in caplog.text
    with pytest.raises(NotReadyError, match="nobody there"):
        one_teacher({"a:1": NotReadyError("nobody there"), "b:2": NotReadyError("nor there")}, listed=True)


def test_only_what_may_pass_is_retried() -> None:
    may_pass = {wire.grpc_code for wire in TABLE.values() if wire.retry}
    for method in _SERVICE_CONFIG["methodConfig"]:
        assert set(method["retryPolicy"]["retryableStatusCodes"]) <= may_pass


async def test_every_certificate_holds_the_first_name(tmp_path) -> None:
    authority, trusted = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(trusted)
    servers = [
        TlsTeacher(authority, "localhost"),
        TlsTeacher(authority, "localhost"),
        TlsTeacher(authority, "b"),
    ]
    for server in servers:
        await server.start()
    url = "grpcs://" + "+".join(f"localhost:{server.port}" for server in servers)
    teacher = connect(url, Options(ca_file=trusted))
    assert await teacher.describe() == TEACHER
    async with asyncio.timeout(20):
        while not (servers[0].asked and servers[1].asked):
            await teacher.usage()
    assert servers[2].asked == 0
    await teacher.close()
    for server in servers:
        await server.stop()


class TlsTeacher(pb_grpc.TeacherServiceServicer):
    """Knows what it is, and counts who asks for its usage."""

    def __init__(self, authority: trustme.CA, host: str) -> None:
        issued = authority.issue_cert(host)
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        self._credentials = grpc.ssl_server_credentials([(issued.private_key_pem.bytes(), chain)])
        self.asked = 0

    async def start(self) -> None:
        self._server = grpc.aio.server()
        pb_grpc.add_TeacherServiceServicer_to_server(self, self._server)
        self.port = self._server.add_secure_port("127.0.0.1:0", self._credentials)
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(0)

    async def Describe(self, request, context):
        return description_to_proto(TEACHER)

    async def GetUsage(self, request, context):
        self.asked += 1
        return pb.GetUsageResponse()
