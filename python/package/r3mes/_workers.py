"""Who runs the calls of a node: threads, and an event loop."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

from . import _native

if TYPE_CHECKING:
    import asyncio


class Threads:
    """Threads that take calls as they come; as many as are busy, and one more, up to a limit."""

    def __init__(self, most: int) -> None:
        self.pool = _native.Pool()
        self._most = most
        self._count = 0
        self._lock = threading.Lock()

    def start(self) -> None:
        """Starts the first one."""
        self._grow()

    def _grow(self) -> None:
        with self._lock:
            if self._count >= self._most:
                return
            self._count += 1
            number = self._count
        threading.Thread(target=self._work, name=f"r3mes call {number}", daemon=True).start()

    def _work(self) -> None:
        take, idle = self.pool.take, self.pool.idle
        while (job := take()) is not None:
            if self._count < self._most and not idle():
                self._grow()
            job.target.run(job)

    def stop(self) -> None:
        """Lets them end once no call is left."""
        self.pool.close()


class Loop:
    """A thread with an event loop, on which coroutines run."""

    def __init__(self) -> None:
        import asyncio

        self.loop = asyncio.new_event_loop()
        self.mailbox: _native.Mailbox | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._thread = threading.Thread(target=self._run, name="r3mes event loop", daemon=True)

    def start(self) -> None:
        """Starts it."""
        from ._loops import mail_of

        mail = mail_of(self.loop)
        mail.run_jobs = self._run_jobs
        self.mailbox = mail.mailbox
        self._thread.start()

    def _run(self) -> None:
        import asyncio

        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        for task in list(self._tasks.values()):
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*self._tasks.values(), return_exceptions=True))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    def _run_jobs(self, jobs: list[_native.Job], cancelled: list[str]) -> None:
        for job in jobs:
            call = job.call
            task = self.loop.create_task(job.target.run_async(job))
            self._tasks[call] = task
            task.add_done_callback(partial(self._forget, call))
        for call in cancelled:
            if call in self._tasks:
                self._tasks[call].cancel()

    def _forget(self, call: str, _: object) -> None:
        self._tasks.pop(call, None)

    def stop(self) -> None:
        """Cancels what runs, and ends."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=5)
