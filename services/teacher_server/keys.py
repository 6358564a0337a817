"""`teacher-server keys`: makes and ends API keys in the file that `teacher-server serve --keys` reads.

    teacher-server keys create alice --keys keys.json --scopes predict,hidden --usd 20 --per month
    teacher-server keys list --keys keys.json
    teacher-server keys rotate alice --keys keys.json --overlap-hours 24
    teacher-server keys revoke alice --keys keys.json

A secret is printed once, on stdout, and stands nowhere else. A running server follows the file.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import get_args

from filelock import FileLock
from pydantic import ValidationError

from teacher_server import auth
from teacher_server.auth import Key, KeyFile, KeysError, Limits, Scope, Secret


def main(arguments: Sequence[str]) -> int:
    """Runs one of the four; returns the exit code, 2 for what cannot be done."""
    given = _parser().parse_args(arguments)
    path = given.keys
    try:
        if path is None:
            raise KeysError("keys: name the file by --keys or TEACHER_KEYS")
        if not path.parent.is_dir():  # the lock would make it, unasked
            raise KeysError(f"keys = {str(path)!r}: no such folder as {str(path.parent)!r}; make it first")
        if given.action == "list":
            print(shown(auth.read(path)))
            return 0
        with FileLock(f"{path}.lock"):  # two at once must not undo each other
            content, secret = _changed(path, given)
            auth.write(path, content)
    except (KeysError, OSError) as error:
        print(f"teacher-server keys: {error}", file=sys.stderr)
        return 2
    if secret:
        print("shown this once; keep it as you keep a password:", file=sys.stderr)
        print(secret)
    return 0


def _changed(path: Path, given: argparse.Namespace) -> tuple[KeyFile, str]:
    """The new content, and the new secret if there is one."""
    if given.action == "create":
        content = auth.read(path) if path.exists() else KeyFile()
        return auth.create(content, given.name, _scopes(given.scopes), _limits(given))
    content = auth.read(path)
    if given.action == "rotate":
        return auth.rotate(content, given.name, _overlap(given.overlap_hours))
    return auth.revoke(content, given.name), ""


def _scopes(text: str) -> list[Scope]:
    known = get_args(Scope)
    wanted = [scope.strip() for scope in text.split(",")]
    if wrong := [scope for scope in wanted if scope not in known]:
        raise KeysError(f"scopes = {text!r}: no such scope as {wrong[0]!r}; there are {', '.join(known)}")
    if "hidden" in wanted and "predict" not in wanted:
        raise KeysError(f"scopes = {text!r}: hidden needs predict beside it, or nothing may be asked")
    return [scope for scope in known if scope in wanted]


def _overlap(hours: float) -> timedelta:
    if not 0 <= hours <= LONGEST_OVERLAP_HOURS:
        raise KeysError(f"overlap_hours = {hours}: give 0 to {LONGEST_OVERLAP_HOURS}, which is a year")
    return timedelta(hours=hours)


def _limits(given: argparse.Namespace) -> Limits:
    named = {name: getattr(given, name) for name in Limits.model_fields}
    try:
        return Limits(**{name: value for name, value in named.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise KeysError(f"{first['loc'][0]} = {first['input']!r}: {first['msg']}") from None


def shown(content: KeyFile) -> str:
    """A line a key: its name, its secrets' prefixes, what it may do, and how much."""
    return "\n".join(map(_line, content.keys)) or "no keys"


def _line(key: Key) -> str:
    if key.revoked:
        return f"{key.name}  revoked {key.revoked:%Y-%m-%d %H:%M}"
    limits = key.limits.model_dump(exclude_none=True, exclude={"per"}, mode="json")
    told = " ".join(f"{name}={value}" for name, value in limits.items()) or "no limits"
    if BUDGETS & limits.keys():
        told += f" per {key.limits.per}"
    prefixes = ",".join(map(_shown_secret, key.secrets))
    return f"{key.name}  {prefixes}  {','.join(sorted(key.scopes))}  {told}  since {key.created:%Y-%m-%d}"


def _shown_secret(secret: Secret) -> str:
    until = f" (until {secret.until:%Y-%m-%d %H:%M} UTC)" if secret.until else ""
    return f"dkd_{secret.prefix}…{until}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="teacher-server keys", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shared = argparse.ArgumentParser(add_help=False)
    file = os.environ.get("TEACHER_KEYS")
    shared.add_argument(
        "--keys", type=Path, default=Path(file) if file else None, help="the file; default: TEACHER_KEYS"
    )
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list", parents=[shared])
    for action in ("create", "rotate", "revoke"):
        one = actions.add_parser(action, parents=[shared])
        one.add_argument("name", help="what its charges and limits go by: a-z, 0-9, . _ -")
        if action == "create":
            one.add_argument(
                "--scopes",
                default="predict",
                help="of predict, hidden (hidden states), admin (all usage); default: %(default)s",
            )
            for name, meaning in LIMITS.items():
                one.add_argument(f"--{name.replace('_', '-')}", help=meaning)
        if action == "rotate":
            one.add_argument(
                "--overlap-hours",
                type=float,
                default=0,
                help="how long the old secret is taken too; default: %(default)s",
            )
    return parser


LIMITS = {
    "texts_per_second": "most texts a second, on average over all replicas that share a budget",
    "texts_in_flight": "most texts that wait for the model at once",
    "queries": "most queries charged in a period",
    "units": "most units charged in a period: the price book's, or else of 1,000 characters",
    "usd": "most dollars of the price book charged in a period",
    "per": "the period of the three: day or month, in UTC; default: month",
}
BUDGETS = {"queries", "units", "usd"}
LONGEST_OVERLAP_HOURS = 8784
