"""Every setting of the server: by flag (`--max-length`), environment (`TEACHER_MAX_LENGTH`) or YAML file.

A flag beats the environment, the environment beats the file, the file beats the default. All
mistakes are reported together, each with the setting's name, its value and the remedy.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

DType = Literal["auto", "float32", "bfloat16", "float16", "int8"]
# YAML's word for False is off.
Compile = Annotated[
    Literal["off", "default", "reduce-overhead"],
    BeforeValidator(lambda value: "off" if value is False else value),
]
Level = Literal["debug", "info", "warning", "error"]


class SettingsError(ValueError):
    """The settings are wrong; the text lists every mistake."""


class Settings(BaseSettings):
    """Serve a sequence-classification checkpoint's logits and hidden states over gRPC and HTTP."""

    model_config = SettingsConfigDict(
        env_prefix="TEACHER_",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        cli_kebab_case="all",
        cli_hide_none_type=True,
        cli_implicit_flags=True,
        cli_prog_name="teacher-server serve",
    )

    config: Path | None = Field(None, description="YAML file with any of these settings")
    model: str = Field(min_length=1, description="folder, or hub name, of the checkpoint to serve")
    name: str | None = Field(None, description="name shown by Describe; default: the model's own")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    dtype: DType = Field(
        "float32",
        description="in which the model computes; auto: bfloat16 where the processor has it; int8: CPU only",
    )
    compile: Compile = Field(
        "off",
        description="mode of torch.compile, or off; reduce-overhead: CUDA graphs; not for packed batches",
    )
    max_length: int = Field(128, ge=2, le=8192, description="longest input, in tokens; longer is truncated")
    threads: int | None = Field(None, ge=1, description="CPU threads of the model; default: all cores")

    host: str = Field("127.0.0.1", min_length=1, description="address on which both faces listen")
    grpc_port: int = Field(50051, ge=0, le=65535, description="port of gRPC; 0 takes a free one")
    http_port: int = Field(8080, ge=0, le=65535, description="port of HTTP; 0 takes a free one")
    keys: Path | None = Field(
        None, description="file of API keys, made by `teacher-server keys`; none: anyone may ask"
    )
    tls_certificate: Path | None = Field(
        None, description="PEM chain of both faces, read again when it changes; none: no TLS"
    )
    tls_key: Path | None = Field(None, description="PEM private key of the certificate")
    tls_client_ca: Path | None = Field(
        None, description="PEM authorities of clients: only who shows a certificate of theirs is let in"
    )
    metrics_open: bool = Field(False, description="/metrics asks for no key; else for one of scope admin")
    request_mib: int = Field(
        6, ge=1, le=64, description="largest request, in MiB; gRPC holds three copies of one that it reads"
    )
    message_mib: int = Field(8, ge=1, le=64, description="largest answer, in MiB")

    max_instances: int = Field(128, ge=1, le=4096, description="most instances in one request")
    max_characters: int = Field(
        100_000, ge=1, description="most characters in one instance, both texts of a pair together"
    )
    max_requests: int = Field(4096, ge=1, description="most requests open at once, over both faces")
    queue_texts: int = Field(2048, ge=1, description="most texts waiting for the model")
    batch_tokens: int | None = Field(
        None,
        ge=2,
        description="most tokens, padding included, in one model run; default: 256 a thread of it on a CPU, "
        "8192 elsewhere",
    )

    cache: str = Field(
        "memory", description="memory, redis://[:password@]host:port/db or rediss://…: where answers are kept"
    )
    cache_entries: int = Field(100_000, ge=0, description="most answers kept in this process's memory")
    cache_mib: int = Field(256, ge=0, description="most MiB of answers kept in this process's memory")
    cache_ttl_seconds: int = Field(0, ge=0, description="seconds that Redis keeps an answer; 0: no end")

    connection_seconds: int = Field(
        60, ge=1, description="seconds after which a gRPC client must connect, and look for replicas, again"
    )
    notice_seconds: float = Field(
        2, ge=0, description="seconds from not ready, after SIGTERM, until new requests are refused"
    )
    budget: str = Field(
        "memory",
        description="memory, redis://… or rediss://…: the keys' accounts; it must keep an AOF and not evict",
    )
    price_book: str | None = Field(
        None, description="what charges are priced at: a book that comes with us, or the path of your own"
    )
    price_feature: str = Field("sentiment", description="the tariff in the book")
    charge_log: Path | None = Field(None, description="append every charge to this file, as a JSON line")

    drain_seconds: float = Field(30, ge=0, description="seconds given to running requests after SIGTERM")
    log_level: Level = Field("info", description="least level that is logged to stderr")

    @field_validator("queue_texts")
    @classmethod
    def _holds_a_request(cls, value: int, info: ValidationInfo) -> int:
        least = info.data.get("max_instances", 0)
        if value < least:
            raise ValueError(f"must be at least max_instances, {least}, or a full request could never enter")
        return value

    @field_validator("batch_tokens")
    @classmethod
    def _holds_a_text(cls, value: int | None, info: ValidationInfo) -> int | None:
        least = info.data.get("max_length", 0)
        if value is not None and value < least:
            raise ValueError(f"must be at least max_length, {least}, or the longest text could never run")
        return value

    @field_validator("tls_key", "tls_client_ca")
    @classmethod
    def _whole_tls(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        certificate = info.data.get("tls_certificate")
        if (value is None) != (certificate is None) and (info.field_name == "tls_key" or value):
            raise ValueError("needs tls_certificate and tls_key, both or none")
        return value

    @field_validator("cache", "budget")
    @classmethod
    def _known_store(cls, value: str) -> str:
        if value != "memory" and not value.startswith(("redis://", "rediss://")):
            raise ValueError("must be memory, redis://… or rediss://…")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings  # the file's values come in as init; flags go before both

    def shown(self) -> dict[str, Any]:
        """The settings as they may be logged: without the passwords of cache and budget."""
        hidden = {"cache": _without_password(self.cache), "budget": _without_password(self.budget)}
        return self.model_dump(mode="json") | hidden


def load(arguments: Sequence[str]) -> Settings:
    """Settings from flags, environment and the file that --config or TEACHER_CONFIG names.

    Raises:
        SettingsError: lists every mistake with its remedy.
        SystemExit: for --help (0) and for a flag that does not exist (2).
    """
    path = _config_path(arguments)
    values = _read_file(path) if path else {}
    try:
        return Settings(_cli_parse_args=list(arguments), **values)
    except ValidationError as error:
        raise SettingsError("\n".join(map(_mistake, error.errors()))) from None


def _config_path(arguments: Sequence[str]) -> str | None:
    """The file must be known before the settings, which it is a part of, can be read."""
    for position, argument in enumerate(arguments):
        if argument == "--config":
            return (*arguments, None)[position + 1]
        if argument.startswith("--config="):
            return argument.removeprefix("--config=")
    return os.environ.get("TEACHER_CONFIG")


def _read_file(path: str) -> Mapping[str, Any]:
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"config = {path!r}: cannot be read: {error}") from None
    except yaml.YAMLError as error:  # its own text quotes the line, which may hold a password
        line = getattr(getattr(error, "problem_mark", None), "line", -1) + 1
        raise SettingsError(f"config = {path!r}: not YAML, see line {line}") from None
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise SettingsError(f"config = {path!r}: must hold `setting: value` lines")
    return values


def _mistake(error: ErrorDetails) -> str:
    name = str(error["loc"][0])
    field = Settings.model_fields.get(name)
    if field is None:
        return f"{name}: no such setting; known are {', '.join(Settings.model_fields)}"
    nothing = error["type"] == "missing" or error["input"] is None
    shown = "" if nothing else f" = {_without_password(str(error['input']))!r}"
    reason = error["msg"].removeprefix("Value error, ")
    flag, variable = name.replace("_", "-"), name.upper()
    return (
        f"{name}{shown}: {reason} ({field.description}); "
        f"set --{flag}, TEACHER_{variable}, or {name} in the --config file"
    )


def _without_password(url: str) -> str:
    """Also where it is no sound URL: a password may hold /, ? and #, and Redis takes one as an option."""
    return re.sub(r"(?i)(password=)[^&]*", r"\1***", re.sub(r"(?<=://).*@", "***@", url))
