"""The processes of a node: functions that block, crash or are cancelled in one take nothing else along.

The node forks a template before it has threads of its own; the template forks the workers, so that they
have the node's functions without importing anything again.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Callable, Mapping

from . import _native
from ._template import (
    CALL,
    END,
    FAILED,
    ITEM,
    NEXT,
    PID,
    PROGRESS,
    VALUE,
    LinkGone,
    become,
    close,
    exactly,
    flush,
    readable,
    receive,
    run_template,
    send,
)
from .errors import CallCancelledError

if TYPE_CHECKING:
    from ._functions import Offered

#: Seconds between two looks whether the call that a process runs was cancelled.
LOOK_S = 0.1
#: Seconds after which a process that scaling added and that had no call ends.
IDLE_S = 10.0
#: What becomes of a node whose template was killed.
LOST = "the process from which this node forks others is gone: the node ends, start it again"


class _NoWorker(Exception):
    """There is no process for a call; says why."""


class _Worker:
    """A process that runs one call at a time, as the node sees it."""

    def __init__(self, link: socket.socket, pid: int) -> None:
        self.link, self.pid = link, pid
        self.idle_since = time.monotonic()


class Processes:
    """The processes of a node: as many as calls run, made when they are needed.

    :param functions: what they run: functions by name, and whether pickled values are read.
    :param lost: is told once, by any thread, why there can be no more processes.
    """

    def __init__(self, functions: Mapping[str, tuple[Offered, bool]], lost: Callable[[str], None]) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._busy = 0
        self._closed = threading.Event()
        self._tell_lost, self._lost = lost, False
        self._control, far = socket.socketpair()
        with far:
            flush()
            self._template = os.fork()
            if self._template == 0:
                self._control.close()
                become(lambda: run_template(far, functions))
        try:
            threading.Thread(target=self._shrink, name="r3mes processes", daemon=True).start()
        except BaseException:
            self.stop()
            raise

    @property
    def count(self) -> int:
        """Processes that run."""
        with self._lock:
            return self._busy + len(self._idle)

    def _gone(self) -> bool:
        """Whether the template is gone, of which the node is told; the lock is held."""
        if not (self._lost or self._closed.is_set()) and readable(self._control):
            self._lost = True
            self._tell_lost(LOST)
        return self._lost

    def _take(self) -> _Worker:
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if not readable(worker.link):
                    self._busy += 1
                    return worker
                self._end(worker)  # It has died.
            worker = self._start()
            self._busy += 1
            return worker

    def _start(self) -> _Worker:
        """A new process; the lock is held."""
        if self._closed.is_set():
            raise _NoWorker("the node ends, and starts no process any more")
        try:
            near, far = socket.socketpair()
        except OSError as error:
            raise _NoWorker(f"the node cannot start a process: {error.strerror}") from None
        try:
            with far:
                socket.send_fds(self._control, [PID.pack(0)], [far.fileno()])
            (pid,) = PID.unpack(exactly(self._control, PID.size))
        except (EOFError, OSError) as error:
            near.close()
            raise _NoWorker(LOST if self._gone() else f"the node cannot start a process: {error}") from None
        if pid < 0:
            near.close()
            raise _NoWorker(f"the node cannot start a process: {os.strerror(-pid)}")
        return _Worker(near, pid)

    def _give_back(self, worker: _Worker, well: bool) -> None:
        with self._lock:
            self._busy -= 1
            if well and not self._closed.is_set():
                worker.idle_since = time.monotonic()
                self._idle.append(worker)
            else:
                self._end(worker)

    def _end(self, worker: _Worker) -> None:
        """Ends a process; the lock is held."""
        close(worker.link)
        with suppress(OSError):  # The template may be gone, and its processes with it.
            self._control.sendall(PID.pack(worker.pid))

    def _shrink(self) -> None:
        """Ends processes that have nothing to do, but for the last one; looks whether the template is gone."""
        while not self._closed.wait(min(1.0, IDLE_S / 4)):
            before = time.monotonic() - IDLE_S
            with self._lock:
                if self._closed.is_set() or self._gone():
                    return
                ended = [worker for worker in self._idle if worker.idle_since < before]
                if len(ended) == self._busy + len(self._idle):
                    ended = ended[:-1]
                self._idle = [worker for worker in self._idle if worker not in ended]
                for worker in ended:
                    self._end(worker)

    def run(self, job: _native.Job, name: str) -> None:
        """Runs a call in a process; a cancelled one ends with it, within `LOOK_S` seconds."""
        try:
            worker, well = self._take(), False
        except _NoWorker as error:
            job.fail("internal", str(error))
            return
        try:
            words = {"function": name, "call": job.call, "user": job.user, "groups": job.groups}
            send(worker.link, CALL, _native.encode(words))
            send(worker.link, CALL, job.raw())
            end = self._follow(job, worker.link)
            well = True
        except CallCancelledError:
            end = partial(job.fail, "cancelled", "the call was cancelled, and its process ended")
        except LinkGone:
            with self._lock:
                why = LOST if self._gone() else f"the process that ran {name} ended before the call did"
            end = partial(job.fail, "internal", why)
        finally:
            self._give_back(worker, well)
        end()  # Only now: whoever is answered may call again, and finds the process idle.

    def _follow(self, job: _native.Job, link: socket.socket) -> Callable[[], None]:
        """Passes on what the process says of a call; what ends the call, after which the process is free."""
        waiting = select.poll()
        waiting.register(link, select.POLLIN)
        while True:
            while not job.cancelled and not waiting.poll(LOOK_S * 1000):
                pass
            if job.cancelled:
                raise CallCancelledError
            kind, body = receive(link)
            if kind == VALUE:
                return partial(job.finish_raw, bytes(body))
            if kind == FAILED:
                return partial(job.fail, *_native.decode(body))
            if kind == END:
                return job.finish_stream
            if kind == PROGRESS:
                job.progress(*_native.decode(body))
            elif kind == NEXT:
                item = job.next_raw()
                send(link, END if item is None else ITEM, item or b"")
            elif not job.send_raw(bytes(body)):
                raise CallCancelledError

    def stop(self) -> None:
        """Ends all of them."""
        self._closed.set()
        with self._lock:
            idle, self._idle = self._idle, []
            close(self._control)
            for worker in idle:
                close(worker.link)
        with suppress(ChildProcessError):  # Where SIGCHLD is ignored, the system keeps nothing of those that ended.
            os.waitpid(self._template, 0)
