"""Promise 20: TLS and mutual TLS on both faces; who is not trusted is refused, and a reload drops no call."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import httpx
import pytest
import trustme
from processes import ServerProcess, start_server

from student_trainer.teachers import Options, Teacher, connect
from student_trainer.teachers.client import Client, Patience
from teacher_api.errors import NotReadyError, TeacherError
from teacher_api.messages import Instance, Want
from teacher_server.settings import SettingsError, load
from teacher_server.tls import CertificateError, Certificates

HOUR = timedelta(hours=1)


class Pki:
    """An authority of servers and one of clients, and the files that a server is given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority, self.clients, self.foreign = (trustme.CA() for _ in range(3))
        self.ca = self.write("ca", self.authority.cert_pem)
        self.client_ca = self.write("client-ca", self.clients.cert_pem)
        self.chain, self.key = folder / "chain", folder / "key"
        self.serve(self.authority)

    def serve(self, authority: trustme.CA, **options: datetime) -> None:
        issued = authority.issue_cert("localhost", "127.0.0.1", **options)
        self.write("chain", *issued.cert_chain_pems)
        self.write("key", issued.private_key_pem)

    def client(self, authority: trustme.CA, name: str, **options: datetime) -> tuple[Path, Path]:
        issued = authority.issue_cert(f"{name}.example", **options)
        chain = self.write(f"{name}-chain", *issued.cert_chain_pems)
        return chain, self.write(f"{name}-key", issued.private_key_pem)

    def write(self, name: str, *blobs: trustme.Blob) -> Path:
        """In one step, as a tool that renews certificates does."""
        path, temporary = self.folder / name, self.folder / f".{name}"
        temporary.write_bytes(b"".join(blob.bytes() for blob in blobs))
        return temporary.replace(path)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def mutual(tiny_model: Path, pki: Pki) -> Iterator[ServerProcess]:
    flags = ("--tls-certificate", pki.chain, "--tls-key", pki.key, "--tls-client-ca", pki.client_ca)
    running = start_server(tiny_model, pki.folder / "log", *map(str, flags))
    yield running
    assert running.stop() == 0


@pytest.fixture(params=["grpcs", "https"])
async def reach(request: pytest.FixtureRequest, mutual: ServerProcess) -> AsyncIterator[object]:
    """Opens a client of one face."""
    address = mutual.grpc if request.param == "grpcs" else mutual.url.removeprefix("http://")
    opened: list[Teacher] = []

    def start(ca: Path, certificate: tuple[Path, Path] | None, scheme: str = request.param) -> Teacher:
        chain, key = certificate or (None, None)
        options = Options(ca_file=ca, certificate=chain, certificate_key=key, timeout_s=20)
        opened.append(connect(f"{scheme}://{address}", options))
        return opened[-1]

    yield start
    for one in opened:
        await one.close()


async def test_only_who_is_trusted_is_let_in(  # type: ignore[no-untyped-def]
    reach, pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    good, past = pki.client(pki.clients, "good"), datetime.now(UTC) - HOUR
    assert (await reach(pki.ca, good).describe()).labels
    refused = {
        "another authority's server": reach(pki.write("foreign", pki.foreign.cert_pem), good),
        "no certificate": reach(pki.ca, None),
        "another authority's client": reach(pki.ca, pki.client(pki.foreign, "stranger")),
        "expired": reach(pki.ca, pki.client(pki.clients, "expired", not_after=past)),
        "plain text": reach(pki.ca, None, "grpc" if "Grpc" in type(reach(pki.ca, good)).__name__ else "http"),
    }
    for why, teacher in refused.items():
        with pytest.raises(TeacherError) as error:
            await teacher.predict([Instance("a")], Want(), "")
        assert isinstance(error.value, NotReadyError), why
    with pytest.raises(NotReadyError, match="STUDENT_TEACHER_CERTIFICATE"):  # what a trainer is told
        await Client.over(refused["no certificate"], Patience(connect_seconds=0))
    with pytest.raises(NotReadyError, match="STUDENT_TEACHER_CA"):
        await Client.over(reach(pki.write("foreign", pki.foreign.cert_pem), good))
    assert "asking the teacher again" not in caplog.text


async def test_a_reload_under_load_drops_no_call(reach, pki: Pki) -> None:  # type: ignore[no-untyped-def]
    """New calls and new connections all the while, and each certificate is seen to be in force."""
    good = pki.client(pki.clients, "loader")
    standing, answered, stop = reach(pki.ca, good), 0, asyncio.Event()

    async def load(fresh: bool) -> None:
        nonlocal answered
        while not stop.is_set():
            teacher = reach(pki.ca, good) if fresh else standing
            (answer,) = await teacher.predict([Instance("a")], Want(), "")
            assert answer.error is None
            answered += 1

    tasks = [asyncio.create_task(load(fresh)) for fresh in (True, True, False, False)]
    for _ in range(5):
        before = answered
        pki.serve(pki.authority)
        while answered < before + 20:
            await asyncio.sleep(0.01)
            assert not any(task.done() for task in tasks), await asyncio.gather(*tasks)
    stop.set()
    await asyncio.gather(*tasks)


async def test_authorities_are_replaced_too(reach, pki: Pki) -> None:  # type: ignore[no-untyped-def]
    old, other = pki.client(pki.clients, "old"), trustme.CA()
    assert (await reach(pki.ca, old).describe()).labels
    pki.serve(other)
    pki.write("client-ca", pki.foreign.cert_pem)
    try:
        new_ca, new = pki.write("new-ca", other.cert_pem), pki.client(pki.foreign, "new")
        assert (await reach(new_ca, new).describe()).labels
        for ca, certificate in ((new_ca, old), (pki.ca, new)):
            with pytest.raises(NotReadyError):
                await reach(ca, certificate).describe()
    finally:
        pki.serve(pki.authority)
        pki.write("client-ca", pki.clients.cert_pem)


def test_files_that_do_not_fit_leave_the_old_ones_in_force(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    certificates = Certificates(pki.chain, pki.key)
    before = certificates.current()
    assert certificates.current() is before
    key = pki.key.read_bytes()
    pki.serve(pki.authority)
    fitting = pki.key.read_bytes()
    pki.key.write_bytes(key)
    assert certificates.current() is before
    pki.key.write_bytes(fitting)
    assert certificates.current() is not before
    pki.key.unlink()
    assert certificates.current().key == fitting
    with pytest.raises(CertificateError, match="No such file"):
        Certificates(pki.chain, pki.key)


@pytest.mark.parametrize("flags", [("--tls-certificate", "a"), ("--tls-key", "a"), ("--tls-client-ca", "a")])
def test_half_of_it_is_a_mistake(flags: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match="tls_certificate and tls_key, both or none"):
        load(["--model", "m", *flags])


def test_an_expired_server_is_refused(new_server, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    pki = Pki(tmp_path)
    pki.serve(pki.authority, not_after=datetime.now(UTC) - HOUR)
    server = new_server("--tls-certificate", str(pki.chain), "--tls-key", str(pki.key))
    trusted = grpc.ssl_channel_credentials(pki.ca.read_bytes())
    with grpc.secure_channel(server.grpc, trusted) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary("/teacher_api.v1.TeacherService/Describe")(b"", timeout=10)
    context = ssl.create_default_context(cafile=pki.ca)
    with pytest.raises(httpx.ConnectError, match="expired"):
        httpx.get(server.url.replace("http", "https") + "/livez", verify=context)
