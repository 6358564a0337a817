"""How settings are read: what they have in common, the forms of a flag, and mistakes told by name."""

from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from student_trainer.errors import UserError


def _split(layers: object) -> object:
    """A flag's own text: `3` must stay a number, where pydantic-settings would make it the list [3]."""
    many = isinstance(layers, str) and ("," in layers or layers.startswith("["))
    return str(layers).strip("[]").split(",") if many else layers


Layers = Annotated[int | list[int] | None, NoDecode, BeforeValidator(_split)]


def listed(value: Any) -> Any:
    """One, or several with commas between them, or none."""
    return value.split(",") if isinstance(value, str) else value or []


Several = Annotated[list[str], NoDecode, BeforeValidator(listed)]


def _named(value: object) -> object:
    """`name=what,name=what` of a flag."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(",") if part]
    if not all(equals for _, equals, _ in pairs):
        raise ValueError("write NAME=VALUE, several with commas between them")
    return {name.strip(): what for name, _, what in pairs}


Named = Annotated[dict[str, str], NoDecode, BeforeValidator(_named)]


def _numbers(value: object) -> object:
    return str(value).strip("[]").split(",") if isinstance(value, str | int) else value


Numbers = Annotated[list[Annotated[int, Field(ge=0)]] | None, NoDecode, BeforeValidator(_numbers)]


class ConfigError(UserError):
    """One or more settings cannot be used; the text has a line for each."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        extra="forbid",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_enforce_required=False,
        allow_inf_nan=False,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags over the file; no hidden source in the environment: a run is what its file says."""
        return (init_settings,)


AnySettings = TypeVar("AnySettings", bound=Settings)


def parse(kind: type[AnySettings], arguments: list[str], command: str) -> AnySettings:
    """The settings from `--config FILE` and the flags, the flags winning.

    Raises:
        ConfigError: naming every field that cannot be used, its value and the remedy.
    """
    file, flags = _take_config(arguments)
    # cli_exit_on_error stays on for --help and malformed flags: argparse's own words are best there.
    source: CliSettingsSource[Any] = CliSettingsSource(
        kind, cli_prog_name=f"student-trainer {command}", cli_parse_args=flags
    )
    return made(kind, _read(file) | dict(source()))


def names_suite(arguments: list[str]) -> bool:
    """Whether `bench` is to run a suite: by its flag, or by the file of `--config`."""
    file, flags = _take_config(arguments)
    return "suite" in _read(file) or any(flag.partition("=")[0] == "--suite" for flag in flags)


def made(kind: type[AnySettings], values: dict[str, Any]) -> AnySettings:
    """Raises ConfigError, with a line for each value that cannot be used."""
    try:
        return kind(**values)
    except ValidationError as error:
        raise ConfigError("\n".join(mistakes(error, kind))) from None


def mistakes(error: ValidationError, kind: type[BaseModel]) -> list[str]:
    """A line for each value that cannot be used."""
    return [_mistake(one, kind) for one in error.errors()]


def _take_config(arguments: list[str]) -> tuple[Path | None, list[str]]:
    for position, word in enumerate(arguments):
        if word == "--config" and position + 1 < len(arguments):
            return Path(arguments[position + 1]), arguments[:position] + arguments[position + 2 :]
        if word.startswith("--config="):
            return Path(word.removeprefix("--config=")), arguments[:position] + arguments[position + 1 :]
    return None, arguments


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        values = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"config: {file} cannot be read: {error}") from None
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ConfigError(f"config: {file} must hold `field: value` lines")
    return values


def _mistake(one: ErrorDetails, kind: type[BaseModel]) -> str:
    """A line: the field, what is wrong with its value, what is wanted."""
    name, reason = ".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, ")
    if not one["loc"]:
        return reason  # of fields that do not fit together: it names them itself
    if one["type"] == "extra_forbidden":
        known = f"; known are {', '.join(kind.model_fields)}" if len(one["loc"]) == 1 else ""
        return f"{name}: no such setting{known}"
    value = "it is missing" if one["type"] == "missing" else f"{reason} (it is {one['input']!r})"
    wanted = getattr(kind.model_fields.get(str(one["loc"][0])), "description", None)
    return f"{name}: {value}" + (f"; wanted: {wanted}" if wanted else "")
