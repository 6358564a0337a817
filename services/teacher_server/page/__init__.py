"""The page at `/`: the model's card, what the server does now, and what the viewer's key has used.

It is written by the server and needs nothing else: no build, nothing from elsewhere. A few lines of script
ask `/status` every other second and change only the figures.
"""

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from teacher_api.messages import Description
from teacher_server.page.status import status, used

__all__ = ["HEADERS", "render", "status", "used"]

_STYLE, _SCRIPT = (files(__package__).joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
_TEMPLATES = Environment(
    loader=PackageLoader("teacher_server", "page"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _digest(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# Nothing runs and nothing is asked but what is named here, whatever a model's name may hold.
_POLICY = {
    "default-src": "'none'",
    "style-src": _digest(_STYLE),
    "script-src": _digest(_SCRIPT),
    "connect-src": "'self'",
    "img-src": "data:",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
HEADERS = {
    "content-security-policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items()),
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


USAGE = (
    ("queries", "queries charged in this period"),
    ("usd", "charged for them"),
    ("left", "left of the budget"),
    ("asked", "texts asked since the start"),
    ("free", "of them free: cached, or joined to another's"),
    ("failed", "of them failed"),
)


def render(teacher: Description, caller: str, now: Mapping[str, Any]) -> str:
    """The page as it is sent; `now` is a status."""
    return _TEMPLATES.get_template("page.html").render(
        teacher=teacher,
        card=_card(teacher),
        caller=caller,
        now=now,
        usage=USAGE,
        style=Markup(_STYLE),  # our own, whose digest the policy names
        script=Markup(_SCRIPT),
    )


def _card(teacher: Description) -> dict[str, str]:
    """What Describe says, for people."""
    return {
        "Labels, in order": ", ".join(teacher.labels),
        "Parameters": f"{teacher.parameters:,}",
        "Layers": f"{teacher.layers}, each {teacher.hidden_size} wide",
        "Computes in": f"{teacher.dtype}, {teacher.runtime}",
        "Longest input": f"{teacher.max_length:,} tokens; longer is truncated",
        "Largest request": f"{teacher.max_instances:,} texts, {teacher.max_characters:,} characters each",
        "Hidden states": ", ".join(teacher.poolings),
        "Fingerprint": teacher.fingerprint,
        "Vocabulary": teacher.vocabulary_hash,
    }
