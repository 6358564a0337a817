"""One connection to Redis on which commands follow one another without waiting for replies.

A pool's way costs a task, a connection's checks and two timers for each command, more than Redis itself
takes; here a command costs a place in a queue.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError


class Line:
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
        self._waiting: deque[tuple[asyncio.Future[object], asyncio.TimerHandle]] = deque()
        self._unsent: list[bytes] | None = []  # None once connected
        self._replies = asyncio.create_task(self._read())

    async def ask(self, *command: bytes) -> object:
        """The reply, which may be a ResponseError; None if none came in time."""
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[object] = loop.create_future()
        self._waiting.append((reply, loop.call_later(self._seconds, self.end, "no reply in time")))
        packed = pack_command(command)  # type: ignore[arg-type]  # its stub takes a tuple of one
        if self._unsent is not None:
            self._unsent.append(packed)
        else:
            await self._send(packed)
        return await reply

    async def _send(self, *packed: bytes) -> None:
        """Written before anyone else has a turn, so in the order of the queue."""
        try:
            await self._connection.send_packed_command(packed, check_health=False)
        except BaseException as error:
            self.end(type(error).__name__)
            if not isinstance(error, Exception):
                raise

    async def _read(self) -> None:
        """Hands out the replies."""
        try:
            await self._connection.connect()  # type: ignore[no-untyped-call]
            unsent, self._unsent = self._unsent or (), None
            await self._send(*unsent)
            while True:
                self._hand(await self._reply())
        except Exception as error:  # a corrupt reply can raise anything out of the parser
            self.end(type(error).__name__)
        finally:
            await self._connection.disconnect(nowait=True)

    async def _reply(self) -> object:
        try:
            return await self._connection.read_response()
        except ResponseError as error:
            return error

    def _hand(self, result: object) -> None:
        reply, timer = self._waiting.popleft()  # IndexError: nobody has asked
        timer.cancel()
        if not reply.done():
            reply.set_result(result)
        if not isinstance(result, ResponseError):
            self._note("")

    def end(self, fault: str) -> None:
        """Nothing more is asked or handed out."""
        if self.ended:
            return
        self.ended = True
        self._replies.cancel()
        if self._waiting:
            self._note(fault)
        for reply, timer in self._waiting:
            timer.cancel()
            if not reply.done():
                reply.set_result(None)

    async def close(self) -> None:
        self.end("closed")
        await asyncio.wait({self._replies})
