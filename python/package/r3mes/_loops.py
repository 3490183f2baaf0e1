"""How threads of the native half reach event loops: one file descriptor for each loop."""

from __future__ import annotations

import asyncio
import threading
import weakref
from typing import Any, Callable

from . import _native


class LoopMail:
    """The mailbox of an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.mailbox = _native.Mailbox()
        #: Runs calls that a node was given; set by the loop of a node.
        self.run_jobs: Callable[[list[_native.Job], list[str]], None] | None = None
        loop.add_reader(self.mailbox.fileno(), self._collect)

    def _collect(self) -> None:
        jobs, cancelled = self.mailbox.collect()
        if self.run_jobs is not None and (jobs or cancelled):
            self.run_jobs(jobs, cancelled)


_all: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopMail] = weakref.WeakKeyDictionary()


class _Last(threading.local):
    """The loop that this thread used last."""

    loop: asyncio.AbstractEventLoop | None = None
    mail: LoopMail | None = None


_last = _Last()


def mail_of(loop: asyncio.AbstractEventLoop) -> LoopMail:
    """The mailbox of this loop, which must be the running one."""
    if _last.loop is loop and _last.mail is not None:
        return _last.mail
    mail = _all.get(loop)
    if mail is None:
        mail = _all[loop] = LoopMail(loop)
    _last.loop, _last.mail = loop, mail
    return mail


class PendingReply(asyncio.Future):  # type: ignore[type-arg]
    """A result that is still to come. Cancelling it cancels the call."""

    #: The native half of the call.
    call: Any = None

    def cancel(self, msg: Any = None) -> bool:
        if not super().cancel(msg):
            return False
        if self.call is not None:
            self.call.cancel()
        return True
