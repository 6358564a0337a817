"""Every limit of size is told by its error, soon, and costs no memory to speak of."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from oversize import CASES, refusal
from processes import ServerProcess

from teacher_server import http_api, http_patience
from teacher_server.auth import Access

SECONDS = 10  # on a busy machine; on a quiet one 100 ms, see tests/soak
MIB = 20


@pytest.mark.parametrize("case", CASES)
async def test_what_is_too_large_is_refused(server: ServerProcess, case: str) -> None:
    told = await refusal(server, case)
    assert told.code == CASES[case][1]
    assert told.seconds < SECONDS
    assert told.mib <= MIB


# ---- slow-loris, over a socket of its own: a server waits for 20 s ----

HEAD = b"POST /v1/predict HTTP/1.1\r\nhost: here\r\n"
SLOW = {
    "no head": (b"", b"HTTP/1.1 408 "),
    "half a head": (HEAD, b"HTTP/1.1 408 "),
    "half a body": (HEAD + b"content-length: 9\r\n\r\n[", b"HTTP/1.1 504 "),
}


def gate(app: http_api.App) -> http_api.Gate:
    """Open to all, for small bodies."""
    return http_api.Gate(app, Access(), 1000, frozenset())


@pytest.mark.parametrize("case", SLOW)
async def test_a_request_that_trickles_is_cut_off(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.setattr(http_api, "BODY_SECONDS", 0.2)
    monkeypatch.setattr(http_patience, "HEAD_SECONDS", 0.2)
    server, task, port = await http_api.start_http(gate(unreachable), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent, status = SLOW[case]
    writer.write(sent)
    answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.startswith(status)
    assert b"connection: close" in answer
    writer.close()
    server.should_exit = True
    await task


async def test_who_asks_again_in_time_is_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_patience, "HEAD_SECONDS", 0.3)
    server, task, port = await http_api.start_http(gate(slow_answer), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(3):
        writer.write(HEAD + b"\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).startswith(b"HTTP/1.1 204 ")
    writer.close()
    server.should_exit = True
    await task


async def unreachable(*_: object) -> None:
    raise AssertionError


async def slow_answer(_: Any, __: Any, send: Callable[..., Any]) -> None:
    """Longer than a head may take: only a head is waited for."""
    await asyncio.sleep(0.4)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})
