"""The synchronous face of a run's Askers, one a teacher: all on one event loop, in a thread of its own."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from threading import Thread

from student_trainer.teachers.asker import Asker
from teacher_api.messages import Answer, Description, Instance

GRACE_S = 10.0  # at the end: how long questions under way may take to bring their answers home


class Asking:
    """Questions handed over without waiting.

        @asynccontextmanager
        async def opened():
            async with await Client.connect(url) as client:
                with closing(open_database(path)) as database:
                    ledger = Ledger(database, run=..., teacher=client.description.fingerprint, ...)
                    budget = Budget(ledger)
                    yield [Asker(client, Want(), store=Store(database), ledger=ledger, budget=budget)]

        with Asking(opened()) as teachers:
            answers = teachers.submit(step, rows, instances).result()

    Raises what `opened` raises on its way in.
    """

    def __init__(
        self, opened: AbstractAsyncContextManager[Sequence[Asker]], grace_s: float = GRACE_S
    ) -> None:
        self._opened, self._grace_s = opened, grace_s
        self._ready: Future[Sequence[Asker]] = Future()
        self._asks: set[asyncio.Task[list[Answer | None]]] = set()
        self._thread = Thread(target=lambda: asyncio.run(self._live()), name="asking", daemon=True)
        self._thread.start()
        self._askers = self._ready.result()

    @property
    def descriptions(self) -> list[Description]:
        """What each teacher is."""
        return [asker.description for asker in self._askers]

    def submit(
        self, step: int, rows: Sequence[int], instances: Sequence[Instance], teacher: int = 0
    ) -> Future[list[Answer | None]]:
        """The answers of one teacher to come, as `Asker.ask` gives or raises them."""
        ask = self._ask(self._askers[teacher], step, rows, instances)
        return asyncio.run_coroutine_threadsafe(ask, self._loop)

    def kept(self, instances: Sequence[Instance], teacher: int = 0) -> list[Answer | None]:
        """What one teacher answered before, as `Asker.kept` has it."""
        asker = self._askers[teacher]

        async def look_up() -> list[Answer | None]:
            return asker.kept(instances)

        return asyncio.run_coroutine_threadsafe(look_up(), self._loop).result()

    def close(self) -> None:
        """Waits a while for what is under way, for it may be paid already; then ends the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join()

    def __enter__(self) -> "Asking":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _live(self) -> None:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with self._opened as askers:
                self._ready.set_result(askers)
                await self._closing.wait()
                await self._end()
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _ask(
        self, asker: Asker, step: int, rows: Sequence[int], instances: Sequence[Instance]
    ) -> list[Answer | None]:
        task = asyncio.current_task()
        assert task is not None
        self._asks.add(task)
        try:
            return await asker.ask(step, rows, instances)
        finally:
            self._asks.discard(task)

    async def _end(self) -> None:
        if self._asks:
            _, late = await asyncio.wait(self._asks, timeout=self._grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
