"""Teachers: one interface, and a way to each of them by URL."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import SplitResult, urlsplit

from student_trainer.errors import UserError
from teacher_api.errors import FingerprintMismatchError, InternalError
from teacher_api.messages import Answer, Description, Instance, Usage, Want, answer_from_proto
from teacher_api.tensors import TensorError
from teacher_api.v1 import teacher_pb2 as pb

FORMS = (
    "grpc://host:port, grpcs://host:port, http://host:port, https://host:port, local:DIR, or recorded:FILE; "
    "several gRPC servers of one teacher are grpc://host:port+host:port"
)
API_KEY = "STUDENT_TEACHER_API_KEY"
_KEYS = "host:port=KEY,host:port=KEY"
_KEY_OF_A_HOST = re.compile(r"([^=,/\s]+:\d+)=(\S+)")


class TeacherUrlError(UserError):
    """A teacher's URL is malformed, or names something that cannot be opened."""


class WantError(UserError):
    """The teacher never gives what is wanted; the text names both and the remedy."""


class Teacher(Protocol):
    """Answers questions about instances. Every method raises TeacherError when it cannot."""

    async def describe(self) -> Description:
        """What the teacher is: labels, layers, limits, and the fingerprint to pin."""

    async def predict(
        self, instances: Sequence[Instance], want: Want, fingerprint: str, operation: str = ""
    ) -> list[Answer]:
        """Asks one request of at most `max_instances`.

        Returns one answer for each instance, in their order; an instance that failed alone has its
        error there. The request is refused unless `fingerprint` is the teacher's, or empty. Within an
        `operation` a teacher who keeps accounts charges for a text once, and says so each time it is asked.
        """

    async def usage(self) -> Usage:
        """What this caller has asked and been charged."""

    async def close(self) -> None:
        """Gives connections, threads and memory back."""

    def refuse_beyond(self, want: Want, description: Description) -> None:
        """Raises WantError for outputs that this teacher never gives. Asks nothing."""
        if want.layers and want.pooling not in description.poolings:
            raise WantError(
                f"pooling: {description.name} gives {', '.join(description.poolings) or 'no hidden states'}, "
                f"not {want.pooling}; choose what it gives, or another teacher"
            )
        if want.attentions and not description.attention_heads:
            raise WantError(
                f"attentions: {description.name} gives none; leave them out, or choose another teacher"
            )

    def refuse_unknown(self, rows: Sequence[Instance]) -> None:
        """Raises WantError if it has no answer about some of the training rows; a model has about any. Asks
        nothing."""
        return


def _named(variable: str) -> Path | None:
    return Path(os.environ[variable]) if os.environ.get(variable) else None


@dataclass(frozen=True)
class Options:
    """How a teacher is reached.

    Attributes:
        api_key: sent as a bearer token; by default what STUDENT_TEACHER_API_KEY holds, for a secret
            does not belong into a file of settings: one key, or host:port=KEY for each teacher.
        ca_file: PEM certificates to trust in place of the system's (grpcs, https); by default the file
            that STUDENT_TEACHER_CA names.
        certificate: PEM chain that is shown to a teacher who asks for one (STUDENT_TEACHER_CERTIFICATE).
        certificate_key: its private key (STUDENT_TEACHER_CERTIFICATE_KEY).
        timeout_s: seconds that one request may take.
        device: of a teacher in process: "auto" (an accelerator if there is one), or a torch device.
        dtype: in which a teacher in process computes; see teacher-server's setting.
        max_length: tokens at which a teacher in process truncates.
        threads: CPU threads of a teacher in process; None leaves torch's own number.
    """

    api_key: str = field(default_factory=lambda: os.environ.get(API_KEY, ""), repr=False)
    ca_file: Path | None = field(default_factory=lambda: _named("STUDENT_TEACHER_CA"))
    certificate: Path | None = field(default_factory=lambda: _named("STUDENT_TEACHER_CERTIFICATE"))
    certificate_key: Path | None = field(default_factory=lambda: _named("STUDENT_TEACHER_CERTIFICATE_KEY"))
    timeout_s: float = 60.0
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "float32"
    max_length: int = 128
    threads: int | None = None


def connect(url: str, options: Options | None = None) -> Teacher:
    """The teacher at a URL; nothing is sent yet, but `local:` loads its model here.

    Each transport is imported only when asked for, so that one may live without another's library.

    Raises:
        TeacherUrlError: the URL has none of the accepted forms, the local model cannot be loaded, or
            there is no such file of certificates.
        RecordingError: there is no such recording.
    """
    options = options or Options()
    for path in (options.ca_file, options.certificate, options.certificate_key):
        if path and not path.is_file():
            raise TeacherUrlError(f"there is no file of certificates {str(path)!r}")
    if (options.certificate is None) != (options.certificate_key is None):
        raise TeacherUrlError("STUDENT_TEACHER_CERTIFICATE and STUDENT_TEACHER_CERTIFICATE_KEY: set both")
    options = replace(options, api_key=key_for(url, options.api_key))
    scheme, _, rest = url.partition(":")
    if scheme == "local" and rest:
        from student_trainer.teachers.in_process import InProcessTeacher  # noqa: PLC0415

        return InProcessTeacher(rest, options)
    if scheme == "recorded" and rest:
        from student_trainer.teachers.recorded import RecordedTeacher, Recording  # noqa: PLC0415

        return RecordedTeacher(Recording.open(Path(rest)))
    if scheme in ("grpc", "grpcs"):
        from student_trainer.teachers.over_grpc import GrpcTeacher  # noqa: PLC0415

        return GrpcTeacher(_hosts(url), options, secure=scheme == "grpcs")
    if scheme in ("http", "https"):
        from student_trainer.teachers.over_http import HttpTeacher  # noqa: PLC0415

        return HttpTeacher(f"{scheme}://{_hosts(url)[0]}", options)
    raise TeacherUrlError(f"teacher {url!r} has no known form; use {FORMS}")


def key_for(url: str, given: str) -> str:
    """Of the given keys, the teacher's at this URL, or none: a key that is a host's goes nowhere else.

    Raises TeacherUrlError if they are neither one key nor one for each host, or servers of one teacher have
    different ones.
    """
    keys, hosts = _by_host(given), _hosts(url)
    if keys is None or not hosts:
        return given.strip() if hosts else ""
    own = {keys.get(host.casefold(), "") for host in hosts}
    if len(own) > 1:
        raise TeacherUrlError(
            f"{API_KEY}: the servers of {url} are one teacher; name one key for each of them"
        )
    return own.pop()


def refuse_shared_key(urls: Iterable[str]) -> None:
    """Raises TeacherUrlError if one key would be shown to several teachers' hosts."""
    key, remote = os.environ.get(API_KEY, ""), list(dict.fromkeys(url for url in urls if _hosts(url)))
    if key and len(remote) > 1 and _by_host(key) is None:
        example = ",".join(f"{_hosts(url)[0]}=KEY" for url in remote)
        raise TeacherUrlError(
            f"{API_KEY}: one key would be shown to {len(remote)} teachers, {', '.join(remote)}; say whose "
            f"it is: {example}"
        )


def _by_host(given: str) -> dict[str, str] | None:
    """host:port -> key; None of one key for whichever teacher there is. Whatever else has a comma or an
    address in it may be a list with a slip, and holds keys of others."""
    parts = [part.strip() for part in given.split(",")]
    found = [_KEY_OF_A_HOST.fullmatch(part) for part in parts]
    if len(parts) == 1 and not found[0] and "://" not in given:
        return None
    if None in found:
        raise TeacherUrlError(f"{API_KEY}: it is no key and no list of keys; give KEY, or {_KEYS}")
    return {match[1].casefold(): match[2] for match in found if match}


def answers_from_response(response: pb.PredictResponse, asked: int, pinned: str) -> list[Answer]:
    """The answers that came over a wire.

    Raises:
        FingerprintMismatchError: another teacher than the pinned one answered.
        InternalError: not one intact answer for each of the instances that were asked.
    """
    if pinned and response.fingerprint != pinned:
        raise FingerprintMismatchError(
            "another teacher answered than the one pinned",
            field="fingerprint",
            value=response.fingerprint,
            limit=pinned,
        )
    if len(response.answers) != asked:
        raise InternalError(
            "the teacher sent another number of answers", value=len(response.answers), limit=asked
        )
    try:
        return [answer_from_proto(answer) for answer in response.answers]
    except TensorError as error:
        raise InternalError(f"the teacher sent a corrupt answer: {error}") from error


def _hosts(url: str) -> list[str]:
    """host:port of a teacher that is asked over a wire, several of one with several servers; else none."""
    scheme, servers = url.partition(":")[0], url.partition("://")[2]
    if scheme in ("http", "https"):
        return [_address(url)]
    if scheme not in ("grpc", "grpcs"):
        return []
    try:
        return [_address(f"{scheme}://{server}") for server in servers.split("+")]
    except TeacherUrlError:
        raise TeacherUrlError(f"teacher {url!r} is not hosts and ports; use {FORMS}") from None


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        complete = bool(parts.hostname and parts.port) and _only_address(parts)
    except ValueError:  # a port that is no number or too large, a torn IPv6 address
        complete = False
    if not complete:
        raise TeacherUrlError(f"teacher {url!r} is not a host and a port; use {FORMS}")
    return parts.netloc


def _only_address(parts: SplitResult) -> bool:
    return "@" not in parts.netloc and parts.path in ("", "/") and not (parts.query or parts.fragment)
