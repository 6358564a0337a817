"""Settings by flag, environment and file; every mistake is named with its value and remedy, all together."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import ServerProcess

from teacher_server.serving import make_cache, run
from teacher_server.settings import Settings, SettingsError, load


def test_flag_beats_environment_beats_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "server.yaml"
    file.write_text("model: from-file\nmax_length: 64\nhttp_port: 1\ngrpc_port: 2\n")
    monkeypatch.setenv("TEACHER_GRPC_PORT", "3")
    monkeypatch.setenv("TEACHER_HTTP_PORT", "4")
    chosen = load(["--config", str(file), "--http-port", "5"])
    assert (chosen.model, chosen.max_length) == ("from-file", 64)
    assert (chosen.grpc_port, chosen.http_port) == (3, 5)
    monkeypatch.setenv("TEACHER_CONFIG", str(file))
    assert load(["--model", "from-flag"]).model == "from-flag"


def test_off_is_off_in_yaml_too(tmp_path: Path) -> None:
    """There it is a word for False."""
    file = tmp_path / "server.yaml"
    file.write_text("model: some/model\ncompile: off\n")
    assert load(["--config", str(file)]).compile == "off"
    assert load(["--config", str(file), "--compile", "reduce-overhead"]).compile == "reduce-overhead"


def test_all_mistakes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "server.yaml"
    file.write_text("max_lenght: 64\n")
    monkeypatch.setenv("TEACHER_QUEUE_TEXTS", "5")
    with pytest.raises(SettingsError) as wrong:
        load(
            ["--config", str(file), "--batch-tokens", "64", "--dtype", "int4", "--cache", "memcached://:pw@x"]
        )
    mistakes = str(wrong.value).splitlines()
    assert len(mistakes) == 6
    for name, value, remedy in [
        ("model", "", "TEACHER_MODEL"),
        ("dtype", "'int4'", "float16"),
        ("queue_texts", "'5'", "at least max_instances, 128"),
        ("batch_tokens", "'64'", "at least max_length, 128"),
        ("cache", "'memcached://***@x'", "--cache"),
        ("max_lenght", "", "max_length"),
    ]:
        (line,) = [line for line in mistakes if line.startswith((f"{name}:", f"{name} = {value}"))]
        assert remedy in line


@pytest.mark.parametrize("content", ["- a list", "model: [", "1: 2"])
def test_unreadable_file(tmp_path: Path, content: str) -> None:
    file = tmp_path / "server.yaml"
    file.write_text(content)
    with pytest.raises(SettingsError, match="config = "):
        load([f"--config={file}"])


@pytest.mark.parametrize(
    "address",
    [
        "rediss://user:secret@host:6379/0",
        "redis://:se/secret@host:6379/0",
        "redis://:a?secret#b@host/0",
        "redis://:a@secret@host",
        "redis://host/0?db=1&password=secret&x=2",
    ],
)
def test_password_is_not_shown(address: str) -> None:
    chosen = Settings(model="m", cache=address)
    assert "secret" not in str(chosen.shown())
    assert "host" in chosen.shown()["cache"]
    with pytest.raises(SettingsError) as wrong:
        load(["--model", "m", "--cache", address.replace("redis", "memcached")])
    assert "secret" not in str(wrong.value)


def test_unreadable_file_is_not_quoted(tmp_path: Path) -> None:
    file = tmp_path / "server.yaml"
    file.write_text("model: m\ncache: redis://:secret@host: 1\n")
    with pytest.raises(SettingsError, match="line 2") as wrong:
        load([f"--config={file}"])
    assert "secret" not in str(wrong.value)


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "usage: teacher-server serve"),
        (["serve"], "TEACHER_MODEL"),
        (["serve", "--model", "no/such-model-here"], "no/such-model-here"),
    ],
)
def test_exit_code_2_without_a_stack_trace(arguments: list[str], words: str) -> None:
    command = [sys.executable, "-m", "teacher_server", *arguments]
    env = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_cache_address_that_cannot_be_read() -> None:
    chosen = Settings(model="m", cache="redis://:pass/word@host/0")
    with pytest.raises(SettingsError, match="percent-encoded") as wrong:
        make_cache(chosen)
    assert "pass/" not in str(wrong.value)


WRONG_PLACES = {
    "no folder": (["--charge-log", "/nowhere/charges.jsonl"], "charge_log = '/nowhere/charges.jsonl'"),
    "no charges": (["--charge-log", "charges"], "charge_log = 'charges'"),
    "no port": (["--budget", "redis://h:99999/0"], "budget = 'redis://h:99999/0'"),
    "no number": (["--cache", "redis://h:port/0"], "cache = 'redis://h:port/0'"),
    "no book": (["--price-book", "none"], "price_book = none"),
    "no keys": (["--keys", "none"], "keys = 'none'"),
    "no certificate": (["--tls-certificate", "a", "--tls-key", "b"], "tls: a, b"),
}


@pytest.mark.parametrize("case", WRONG_PLACES)
def test_a_wrong_place_is_told_before_the_model_is_sought(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags, told = WRONG_PLACES[case]
    monkeypatch.chdir(tmp_path)
    Path("charges").write_text("[1]\n")
    with pytest.raises(SettingsError) as refused:
        run(load(["--model", "nowhere", *flags]))
    assert told in str(refused.value)


def test_a_port_in_use_is_a_mistake(server: ServerProcess, tiny_model: Path) -> None:
    taken = server.grpc.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "teacher_server", "serve", "--model", str(tiny_model)]
    ports = ["--grpc-port", taken, "--http-port", "0"]
    done = subprocess.run([*command, *ports], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{taken}" in done.stderr
    assert "Traceback" not in done.stderr
