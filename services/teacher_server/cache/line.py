"""One connection to Redis on which commands follow one another without waiting for replies.

A pool's way costs a task, a connection's checks and two timers for each command, more than Redis itself
takes; here a command costs a place in a queue, and its reply comes one turn of the event loop sooner than a
stream's.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from hiredis import PushNotification, Reader
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import InvalidResponse, ResponseError

UNFINISHED = object()  # not False, which is a reply, too


class Line(asyncio.Protocol):
    """From the first command to the first fault; then a new one is needed.

    Replies come in the order of the commands, and a command keeps its place whether or not its caller still
    waits: nobody is given another's. What could break that order, be it a late reply, one that nobody has
    asked for, or an end of the connection, ends the line, and all who wait go without.
    """

    ended = False

    def __init__(self, connection: AbstractConnection, seconds: float, note: Callable[[str], None]) -> None:
        """
        Args:
            connection: not yet connected.
            seconds: within which a reply must come, connecting included.
            note: is told after each reply what went wrong: nothing, or the fault that ended the line.
        """
        self._connection, self._seconds, self._note = connection, seconds, note
        self._waiting: deque[tuple[asyncio.Future[object], float]] = deque()  # until when each
        self._timer: asyncio.TimerHandle | None = None
        self._unsent: list[bytes] = []
        self._transport: asyncio.WriteTransport | None = None  # once connected
        self._replies = Reader(replyError=connection._parser.parse_error, notEnoughData=UNFINISHED)
        self._open = asyncio.create_task(self._hold())

    async def ask(self, command: bytes) -> object:
        """The reply, which may be a ResponseError; None if none came in time."""
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[object] = loop.create_future()
        self._waiting.append((reply, loop.time() + self._seconds))
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look)
        if self._transport is None:
            self._unsent.append(command)
        else:
            self._transport.write(command)
        return await reply

    def _look(self) -> None:
        """One timer for all, set anew for whoever is first: nobody has waited longer."""
        self._timer, loop = None, asyncio.get_running_loop()
        if self._waiting and self._waiting[0][1] <= loop.time():
            self.end("no reply in time")
        elif self._waiting:
            self._timer = loop.call_at(self._waiting[0][1], self._look)

    async def _hold(self) -> None:
        """Lets redis-py connect (TLS, password, database), then reads in its place until the end."""
        try:
            await self._connection.connect()  # type: ignore[no-untyped-call]
            self._transport = self._connection._writer.transport  # type: ignore[union-attr]
            self._transport.set_protocol(self)
            self._transport.writelines(self._unsent)
            self._unsent.clear()
            await asyncio.Event().wait()
        except Exception as error:
            self.end(type(error).__name__)
        finally:
            await self._connection.disconnect(nowait=True)

    def data_received(self, data: bytes) -> None:
        """Hands out the replies that are whole."""
        try:
            self._replies.feed(data)
            while not self.ended and (reply := self._replies.gets()) is not UNFINISHED:
                self._hand(reply)
        except Exception as error:  # a corrupt reply can raise anything out of the parser
            self.end(type(error).__name__)

    def _hand(self, result: object) -> None:
        if isinstance(result, Exception) and not isinstance(result, ResponseError):
            raise result  # Redis is not ready
        if isinstance(result, PushNotification):
            raise InvalidResponse("nobody has asked for a push")
        reply, _ = self._waiting.popleft()  # IndexError: nobody has asked
        if not reply.done():
            reply.set_result(result)
        if not isinstance(result, ResponseError):
            self._note("")

    def connection_lost(self, error: Exception | None) -> None:
        self.end(type(error or ConnectionError()).__name__)

    def end(self, fault: str) -> None:
        """Nothing more is asked or handed out."""
        if self.ended:
            return
        self.ended = True
        self._open.cancel()
        if self._transport is not None:
            self._transport.abort()
        if self._waiting:
            self._note(fault)
        if self._timer is not None:
            self._timer.cancel()
        for reply, _ in self._waiting:
            if not reply.done():
                reply.set_result(None)

    async def close(self) -> None:
        self.end("closed")
        await asyncio.wait({self._open})
