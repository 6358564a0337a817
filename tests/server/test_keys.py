"""Promise 19: who may ask. Keys are made and ended while a server runs, and no other key opens anything."""

import json
import re
import secrets
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from faces import LOGITS, grpc_error, texts
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from processes import ServerProcess, start_server

from student_trainer.__main__ import main
from teacher_api.errors import PermissionDeniedError, TeacherError, UnauthenticatedError, error_from_proto
from teacher_api.messages import Want, request_to_proto
from teacher_api.open_inference import inference_pb2
from teacher_api.v1 import teacher_pb2 as pb
from teacher_api.v1.teacher_pb2_grpc import TeacherServiceStub
from teacher_server import auth
from teacher_server.auth import Access, KeyFile, Limits

WRONG_KEYS = 10_000
OPEN_PATHS = {"/livez", "/readyz", "/v2/health/live", "/v2/health/ready"}


def keys(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`teacher-server keys …`, as a process."""
    command = [sys.executable, "-m", "teacher_server", "keys", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def create(path: Path, name: str, *scopes: Any) -> str:
    """As the command does it, without a process; the secret."""
    content, secret = auth.create(auth.read(path) if path.exists() else KeyFile(), name, scopes, Limits())
    auth.write(path, content)
    return secret


@pytest.fixture(scope="module")
def guarded(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServerProcess, Path]]:
    """A server with keys, and their file."""
    folder = tmp_path_factory.mktemp("guarded")
    path = folder / "keys.json"
    create(path, "first", "predict")
    yield (running := start_server(tiny_model, folder / "log", "--keys", str(path))), path
    assert running.stop() == 0


def over_http(server: ServerProcess, header: str, want: Want = LOGITS) -> int:
    """How many answers come; raises what was sent instead."""
    body = {"instances": [{"text": "a"}], "want": {"layers": want.layers}}
    answer = httpx.post(f"{server.url}/v1/predict", json=body, headers={"authorization": header})
    if answer.is_success:
        return len(answer.json()["answers"])
    raise error_from_proto(pb.Error(**answer.json()["error"]))


def over_grpc(server: ServerProcess, header: str, want: Want = LOGITS) -> int:
    with grpc.insecure_channel(server.grpc) as channel:
        try:
            metadata = (("authorization", header),)
            request = request_to_proto(texts("a"), want)
            return len(TeacherServiceStub(channel).Predict(request, metadata=metadata, timeout=20).answers)
        except grpc.RpcError as error:
            raise grpc_error(error) from None


faces = pytest.mark.parametrize("ask", [over_grpc, over_http], ids=["grpc", "http"])
Ask = Callable[..., int]


def test_the_commands_make_list_and_end_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    made = keys(
        "create", "alice", "--keys", path, "--scopes", "predict,hidden", "--usd", "2.5", "--per", "day"
    )
    secret = made.stdout.strip()
    assert re.fullmatch(auth.SECRET, secret)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret.split("_", 2)[2] not in path.read_text()
    listed = keys("list", "--keys", path).stdout
    assert "alice" in listed and "hidden,predict" in listed and "usd=2.5 per day" in listed
    assert secret not in listed and secret[: len("dkd_") + 8] in listed
    taken = keys("create", "alice", "--keys", path)
    assert taken.returncode == 2 and "'alice': taken" in taken.stderr
    rotated = keys("rotate", "alice", "--keys", path).stdout.strip()
    assert Access(path).authenticate(f"Bearer {rotated}").name == "alice"
    with pytest.raises(UnauthenticatedError):
        Access(path).authenticate(f"Bearer {secret}")
    assert keys("revoke", "alice", "--keys", path).returncode == 0
    assert "alice  revoked" in keys("list", "--keys", path).stdout
    for again in ("rotate", "revoke", "create"):
        assert "revoked" in keys(again, "alice", "--keys", path).stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("create", "UPPER"), "name = 'UPPER'"),
        (("create", "open"), "name = 'open': taken"),
        (("create", "a", "--scopes", "all"), "no such scope as 'all'"),
        (("create", "a", "--scopes", "hidden"), "hidden needs predict beside it"),
        (("create", "a", "--usd", "1e400"), "less than or equal to 9007199"),
        (("create", "a", "--queries", "-1"), "queries = '-1'"),
        (("create", "a", "--per", "year"), "per = 'year'"),
        (("create", "a", "--texts-per-second", "inf"), "texts_per_second = 'inf'"),
        (("rotate", "a", "--overlap-hours", "-1"), "keys create NAME"),
        (("revoke", "a"), "keys create NAME"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    done = keys(*arguments, "--keys", tmp_path / "keys.json")
    assert done.returncode == 2
    assert told in done.stderr
    assert not (tmp_path / "keys.json").exists()


@pytest.mark.parametrize("hours", ["-1", "nan", "inf", "1e9"])
def test_an_overlap_is_no_longer_than_a_year(tmp_path: Path, hours: str) -> None:
    path = tmp_path / "keys.json"
    create(path, "a", "predict")
    before = path.read_bytes()
    refused = keys("rotate", "a", "--keys", path, f"--overlap-hours={hours}")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "overlap_hours" in refused.stderr
    assert path.read_bytes() == before


def test_a_folder_is_not_made_by_mistake(tmp_path: Path) -> None:
    refused = keys("create", "a", "--keys", tmp_path / "nowhere/keys.json")
    assert refused.returncode == 2
    assert "no such folder" in refused.stderr
    assert not list(tmp_path.iterdir())


def test_an_old_secret_is_taken_during_the_overlap(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    old = create(path, "a", "predict")
    for hours, taken in ((1, True), (0, False)):
        secret = keys("rotate", "a", "--keys", path, "--overlap-hours", str(hours)).stdout.strip()
        access = Access(path)
        assert access.authenticate(f"Bearer {secret}").name == "a"
        assert ("(until 20" in keys("list", "--keys", path).stdout) is taken
        if taken:
            assert access.authenticate(f"Bearer {old}").name == "a"
        else:
            with pytest.raises(UnauthenticatedError):
                access.authenticate(f"Bearer {old}")


def test_no_wrong_key_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    right = create(path, "a", "predict")
    access, form = Access(path), right.split("_", 2)
    mutated = (right[:place] + one + right[place + 1 :] for place in range(len(right)) for one in "Ab0_-é")
    wrong = {text for text in mutated if text != right} | {"", " ", "dkd", right[:-1], right + "a", "é" * 43}
    while len(wrong) < WRONG_KEYS:  # of the right form, half of them with the right prefix
        prefix = form[1] if len(wrong) % 2 else secrets.token_hex(4)
        wrong.add(f"dkd_{prefix}_{secrets.token_urlsafe(32)}")
    for text in wrong:
        with pytest.raises(UnauthenticatedError):
            access.authenticate(f"Bearer {text}")
    for header in ("", right, f"Token {right}", "Bearer", "Basic", "Basic !", f"Basic {right}"):
        with pytest.raises(UnauthenticatedError):
            access.authenticate(header)
    assert access.authenticate(f"bearer  {right} ").name == "a"


@faces
def test_a_server_follows_its_file(guarded: tuple[ServerProcess, Path], ask: Ask) -> None:
    server, path = guarded
    name = f"late-{ask.__name__.replace('_', '-')}"
    secret = create(path, name, "predict")
    assert ask(server, f"Bearer {secret}") == 1
    before = path.read_text()
    path.write_text("{")  # whoever breaks the file neither lets anybody in nor locks all out
    assert ask(server, f"Bearer {secret}") == 1
    path.write_text(before)
    auth.write(path, auth.revoke(auth.read(path), name))
    with pytest.raises(UnauthenticatedError):
        ask(server, f"Bearer {secret}")


def test_a_secret_of_kubernetes_is_followed_as_it_is_swapped(tmp_path: Path) -> None:
    """The file is a link through the link `..data`, which is renamed to another folder."""
    (tmp_path / "one").mkdir()
    first = create(tmp_path / "one/keys.json", "a", "predict")
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "keys.json").symlink_to("..data/keys.json")
    access = Access(tmp_path / "keys.json")
    assert access.authenticate(f"Bearer {first}").name == "a"
    (tmp_path / "two").mkdir()
    second = create(tmp_path / "two/keys.json", "b", "predict")
    (tmp_path / "..next").symlink_to("two")
    (tmp_path / "..next").replace(tmp_path / "..data")
    assert access.authenticate(f"Bearer {second}").name == "b"
    with pytest.raises(UnauthenticatedError):
        access.authenticate(f"Bearer {first}")


@faces
def test_scopes(guarded: tuple[ServerProcess, Path], ask: Ask) -> None:
    server, path = guarded
    name = ask.__name__.replace("_", "-")
    hidden = create(path, f"hidden-{name}", "predict", "hidden")
    plain = create(path, f"plain-{name}", "predict")
    admin = create(path, f"admin-{name}", "admin")
    assert ask(server, f"Bearer {hidden}", Want(layers=(1,))) == 1
    for secret, want, scope in ((plain, Want(layers=(1,)), "hidden"), (admin, Want(), "predict")):
        with pytest.raises(PermissionDeniedError) as refused:
            ask(server, f"Bearer {secret}", want)
        assert (refused.value.field, refused.value.value) == ("scope", scope)


def test_every_method_is_closed_but_those_of_health(guarded: tuple[ServerProcess, Path]) -> None:
    server, _ = guarded
    services = [one for file in (pb, inference_pb2) for one in file.DESCRIPTOR.services_by_name.values()]
    methods = [f"/{one.full_name}/{method.name}" for one in services for method in one.methods]
    well = [f"/inference.GRPCInferenceService/{name}" for name in ("ServerLive", "ServerReady")]
    methods = [method for method in methods if method not in well]
    assert len(methods) >= 8
    methods.append("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    with grpc.insecure_channel(server.grpc) as channel:
        for method in well:
            assert list(channel.stream_stream(method)(iter([b""]), timeout=20)) == [b"\x08\x01"]
        for method in methods:
            with pytest.raises(grpc.RpcError) as refused:
                list(channel.stream_stream(method)(iter([b""]), timeout=20))
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED, method
        assert health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status == 1
        ask = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
            list(ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")])))


def test_every_path_is_closed_but_those_of_health(guarded: tuple[ServerProcess, Path]) -> None:
    server, path = guarded
    schema_key, admin = create(path, "reader", "predict"), create(path, "operator", "admin")
    with httpx.Client(base_url=server.url) as client:
        as_reader = {"authorization": f"Bearer {schema_key}"}
        paths = client.get("/openapi.json", headers=as_reader).json()["paths"]
        for one in {*paths, "/", "/docs", "/openapi.json", "/nowhere"} - OPEN_PATHS:
            for method in ("GET", "POST"):
                refused = client.request(method, one)
                assert refused.status_code == 401, one
                error = refused.json()["error"]  # the Open Inference Protocol's is a text
                assert "API key" in error if one.startswith("/v2") else error["code"] == "unauthenticated"
                assert "Bearer" in refused.headers["www-authenticate"]
        for one in ("/v2", "/v2/models/any", "/v2/models/any/infer"):
            assert client.post(one).status_code == client.get(one).status_code == 401
        assert {client.get(one).status_code for one in OPEN_PATHS} == {200}
        assert client.get("/metrics", headers=as_reader).status_code == 403
        assert client.get("/metrics", auth=("anything", admin)).status_code == 200  # as a browser sends it


def test_a_trainer_without_a_key_is_told_where_to_put_it(
    guarded: tuple[ServerProcess, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("STUDENT_TEACHER_API_KEY", raising=False)
    rows = "".join(f'{{"text": "{number}", "label": {number % 2}}}\n' for number in range(4))
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text(rows)
    teacher = ("--teacher", f"grpc://{guarded[0].grpc}")
    with pytest.raises(SystemExit) as ended:
        main(["record", "--data", str(tmp_path), *teacher, "--output", str(tmp_path / "a.rec")])
    assert ended.value.code == 1
    assert "STUDENT_TEACHER_API_KEY" in capsys.readouterr().err


def test_no_key_stands_in_the_log(guarded: tuple[ServerProcess, Path]) -> None:
    server, path = guarded
    right, wrong = create(path, "logged", "predict"), auth.new_secret()[0]
    assert over_grpc(server, f"Bearer {right}") == over_http(server, f"Bearer {right}") == 1
    for ask in (over_grpc, over_http):
        with pytest.raises(TeacherError):
            ask(server, f"Bearer {wrong}")
    log = server.log.read_text()
    assert "keys read again" in log
    assert not re.search(r"dkd_[0-9a-f]{8}", log)
    digests = [secret["sha256"] for key in json.loads(path.read_text())["keys"] for secret in key["secrets"]]
    assert digests and not any(digest in log for digest in digests)


def test_a_file_that_is_none_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    command = [sys.executable, "-m", "teacher_server", "serve", "--model", "none", "--keys", str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 2
    assert "No such file" in ran.stderr
    path.write_text("[]")
    with pytest.raises(auth.KeysError, match="not a file of keys"):
        Access(path)


def test_an_open_server_on_a_network_says_so(new_server: Any, server: ServerProcess) -> None:
    warning = "anyone who reaches this address"
    assert warning in new_server("--host", "0.0.0.0").log.read_text()
    assert warning not in server.log.read_text()  # on loopback
