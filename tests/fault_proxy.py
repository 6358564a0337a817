"""A TCP proxy that stands in for a bad network: what it does to replies can change at any moment."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

Fault = Callable[[bytes, "FaultProxy"], Awaitable[bytes | None]]  # None: cut the connection

CHUNK = 65_536


class FaultProxy:
    """Forwards to `port`; each reply goes through `fault` first.

    Attributes:
        fault: one of the functions of this module.
        port: on which it listens.
        rng: decides where a reply is hurt.
    """

    def __init__(self, target_port: int, seed: int = 7) -> None:
        self._target = target_port
        self._tasks: set[asyncio.Task[None]] = set()
        self.fault: Fault = untouched
        self.held = b""  # a reply that another connection will get
        self.rng = random.Random(seed)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        for source, sink, hurt in ((reader, far_writer, False), (far_reader, writer, True)):
            task = asyncio.create_task(self._pump(source, sink, hurt))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, hurt: bool) -> None:
        try:
            while data := await source.read(CHUNK):
                passed = await self.fault(data, self) if hurt else data
                if passed is None:
                    break
                sink.write(passed)
                await sink.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            sink.close()


async def untouched(data: bytes, _: FaultProxy) -> bytes:
    return data


async def delayed(data: bytes, proxy: FaultProxy) -> bytes:
    """By 0-20 ms."""
    await asyncio.sleep(proxy.rng.random() / 50)
    return data


async def swallowed(_: bytes, __: FaultProxy) -> bytes:
    """The reply never comes."""
    return b""


async def cut(_: bytes, __: FaultProxy) -> None:
    """The connection breaks in place of the reply."""


async def truncated(data: bytes, _: FaultProxy) -> bytes:
    """Half a reply, then silence."""
    return data[: len(data) // 2]


async def garbled(data: bytes, proxy: FaultProxy) -> bytes:
    """One byte in fifty is another."""
    return bytes(proxy.rng.randrange(256) if proxy.rng.random() < 0.02 else byte for byte in data)


async def garbage(data: bytes, proxy: FaultProxy) -> bytes:
    """Nothing of the reply is left."""
    return proxy.rng.randbytes(len(data))


async def swapped(data: bytes, proxy: FaultProxy) -> bytes:
    """Each reply is the one before it, of whichever connection."""
    proxy.held, before = data, proxy.held
    return before or data


async def throttled(data: bytes, _: FaultProxy) -> bytes:
    """1 s late: slower than anyone waits."""
    await asyncio.sleep(1)
    return data


async def doubled(data: bytes, _: FaultProxy) -> bytes:
    """Each reply comes twice."""
    return data + data
