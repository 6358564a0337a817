"""API keys: a file of them, who a caller is by what it sends, and what it may do.

The file is JSON and holds no secret, only SHA-256 digests of secrets of 256 random bits; `teacher-server
keys` writes it, and a running server reads it again when it changes. A key's name is what its charges,
its limits and its budget go by: it outlives the secret, which may be rotated.
"""

import base64
import contextlib
import hashlib
import hmac
import logging
import os
import re
import secrets
import tempfile
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from teacher_api.errors import PermissionDeniedError, UnauthenticatedError
from teacher_server.admission import OPEN

Scope = Literal["predict", "hidden", "admin"]
Period = Literal["day", "month"]

PREFIX = 8  # characters by which a secret is looked up; they say nothing about the rest
EXACT = 2**53 - 1  # to here Redis's Lua, which has doubles alone, counts exactly; dollars in billionths
SECRET = re.compile(r"dkd_([0-9a-f]{8})_[\w-]{43}")

CALLER: ContextVar[str] = ContextVar("caller", default=OPEN)  # set by each face before anything is read
OPERATION: ContextVar[str] = ContextVar("operation", default="")

log = logging.getLogger(__name__)


class KeysError(ValueError):
    """The file of keys, or what is to be done to it, is wrong: names it and the remedy."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Limits(Strict):
    """How much a key may ask; None sets no limit. Budgets count what is charged: a cached answer is free."""

    texts_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    texts_in_flight: Annotated[int, Field(gt=0)] | None = None
    queries: Annotated[int, Field(ge=0, le=EXACT)] | None = None
    units: Annotated[int, Field(ge=0, le=EXACT)] | None = None
    usd: Annotated[Decimal, Field(ge=0, le=EXACT // 10**9, decimal_places=9)] | None = None
    per: Period = "month"


class Secret(Strict):
    """What a secret is recognised by, and until when it is taken."""

    prefix: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    until: datetime | None = None


NOBODY = Secret(prefix="0" * PREFIX, sha256="0" * 64)  # no secret has this digest


class Key(Strict):
    """One caller. A revoked key keeps its name, so that nobody else takes its account over."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    scopes: frozenset[Scope]
    limits: Limits = Limits()
    created: datetime
    revoked: datetime | None = None
    secrets: tuple[Secret, ...]

    def require(self, scope: Scope) -> None:
        """Raises PermissionDeniedError where the key has not this scope."""
        if scope not in self.scopes:
            raise PermissionDeniedError(
                "this key may not do that", field="scope", value=scope, limit=" ".join(sorted(self.scopes))
            )


class KeyFile(Strict):
    keys: tuple[Key, ...] = ()

    def named(self, name: str) -> Key | None:
        return next((key for key in self.keys if key.name == name), None)

    def put(self, key: Key) -> "KeyFile":
        """With this key in the place of the one of its name, if there is one."""
        if self.named(key.name) is None:
            return KeyFile(keys=(*self.keys, key))
        return KeyFile(keys=tuple(key if one.name == key.name else one for one in self.keys))


ANYONE = Key(
    name=OPEN,
    scopes=frozenset(("predict", "hidden", "admin")),
    created=datetime.min.replace(tzinfo=UTC),
    secrets=(),
)


# ---- the file ----


def read(path: Path) -> KeyFile:
    """Raises KeysError: no such file, or not one of keys. Nothing that stands in it is quoted."""
    try:
        return KeyFile.model_validate_json(path.read_bytes())
    except OSError as error:
        remedy = f"make it by `teacher-server keys create NAME --keys {path}`"
        raise KeysError(f"keys = {str(path)!r}: {error.strerror}; {remedy}") from None
    except ValidationError as error:
        faults = [(".".join(map(str, fault["loc"])) or "the file", fault["msg"]) for fault in error.errors()]
        told = "; ".join(f"{place}: {why}" for place, why in faults)
        raise KeysError(f"keys = {str(path)!r}: not a file of keys, see {told}") from None


def write(path: Path, content: KeyFile) -> None:
    """In one step, readable by its owner alone; a file that is there keeps its owner and group."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(content.model_dump_json(indent=1, exclude_defaults=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if path.exists() and os.geteuid() == 0:
            before = path.stat()
            os.chown(name, before.st_uid, before.st_gid)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def new_secret() -> tuple[str, Secret]:
    """A secret, which is shown once, and what is kept of it."""
    prefix = secrets.token_hex(PREFIX // 2)
    text = f"dkd_{prefix}_{secrets.token_urlsafe(32)}"
    return text, Secret(prefix=prefix, sha256=_digest(text))


def create(content: KeyFile, name: str, scopes: Iterable[Scope], limits: Limits) -> tuple[KeyFile, str]:
    """The file with one more key, and the key's secret. Raises KeysError for a name that is taken."""
    before = content.named(name)
    if before and before.revoked:
        raise KeysError(f"name = {name!r}: was a key's that is revoked, and its account; choose another")
    if name == OPEN or before:
        raise KeysError(f"name = {name!r}: taken; choose another, or rotate that key's secret")
    text, secret = new_secret()
    try:
        key = Key(
            name=name, scopes=frozenset(scopes), limits=limits, created=datetime.now(UTC), secrets=(secret,)
        )
    except ValidationError:
        raise KeysError(f"name = {name!r}: give up to 63 of a-z, 0-9, . _ -") from None
    return content.put(key), text


def rotate(content: KeyFile, name: str, overlap: timedelta) -> tuple[KeyFile, str]:
    """The file with a new secret for a key, whose old ones are taken for as long as `overlap`."""
    key, now = _there(content, name), datetime.now(UTC)
    until = now + overlap
    text, secret = new_secret()
    ends = {one: min(one.until or until, until) for one in key.secrets}
    kept = (one.model_copy(update={"until": end}) for one, end in ends.items() if end > now)
    return content.put(key.model_copy(update={"secrets": (*kept, secret)})), text


def revoke(content: KeyFile, name: str) -> KeyFile:
    """The file in which this key opens nothing any more."""
    gone = {"secrets": (), "revoked": datetime.now(UTC)}
    return content.put(_there(content, name).model_copy(update=gone))


def _there(content: KeyFile, name: str) -> Key:
    key = content.named(name)
    if key and key.revoked:
        raise KeysError(f"name = {name!r}: was revoked on {key.revoked:%Y-%m-%d}, for good; create another")
    if key is None:
        known = ", ".join(key.name for key in content.keys if not key.revoked) or "none"
        raise KeysError(f"name = {name!r}: no such key; there are: {known}")
    return key


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# ---- the callers ----


class Access:
    """Who may ask. Without a file of keys anyone may, under the name "open"."""

    def __init__(self, path: Path | None = None) -> None:
        """Raises KeysError: the file cannot be used."""
        self._path, self._seen = path, _state(path)
        self._take(read(path) if path else KeyFile())

    @property
    def open(self) -> bool:
        return self._path is None

    @property
    def keys(self) -> tuple[Key, ...]:
        """All there are, revoked ones too: they have been charged."""
        return (ANYONE,) if self.open else self._current().keys

    def authenticate(self, authorization: str) -> Key:
        """Whose key an `Authorization` header holds: `Bearer KEY`, or a browser's `Basic` password.

        Raises:
            UnauthenticatedError: it holds none, or one that is not, or no longer, valid.
        """
        if self.open:
            return ANYONE
        key = self._owner(_secret_of(authorization))
        if key is None:
            raise UnauthenticatedError(
                "a valid API key is needed, as `Authorization: Bearer KEY`", field="authorization"
            )
        return key

    def named(self, name: str) -> Key:
        """The caller that was authenticated. Raises UnauthenticatedError: none was, or its key has ended."""
        key = ANYONE if self.open else self._current().named(name)
        if key is None or key.revoked:
            raise UnauthenticatedError("a valid API key is needed", field="authorization")
        return key

    def _owner(self, text: str) -> Key | None:
        """Takes as long for a secret that is known in part as for one that is not known at all."""
        form, digest = SECRET.fullmatch(text), _digest(text)
        self._current()
        key, secret = self._by_prefix.get(form[1] if form else "", (None, NOBODY))
        right = hmac.compare_digest(secret.sha256, digest)
        expired = secret.until is not None and datetime.now(UTC) >= secret.until
        return key if right and not expired else None

    def _current(self) -> KeyFile:
        """What the file holds; what it held, with a word in the log, while it is broken."""
        state = _state(self._path)
        if self._path and state != self._seen:
            self._seen = state
            try:
                self._take(read(self._path))
                log.info("keys read again", extra={"keys": len(self._content.keys)})
            except KeysError as error:
                log.error("keys stay as they were", extra={"fault": str(error)})
        return self._content

    def _take(self, content: KeyFile) -> None:
        self._content = content
        self._by_prefix = {secret.prefix: (key, secret) for key in content.keys for secret in key.secrets}
        if self._path and self._path.stat().st_mode & 0o022:
            log.warning("others may write the file of keys: chmod 600 it", extra={"keys": str(self._path)})


def _secret_of(authorization: str) -> str:
    scheme, _, text = authorization.strip().partition(" ")
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            return base64.b64decode(text).decode().partition(":")[2]
    return text.strip() if scheme.lower() == "bearer" else ""


def _state(path: Path | None) -> tuple[int, ...]:
    try:
        found = path.stat() if path else None
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_size, found.st_ino) if found else ()
