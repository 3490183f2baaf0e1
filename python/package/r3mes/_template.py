"""What runs in the processes that a node forks: a template, the workers that it forks, and how they speak.

A worker runs one call at a time. It and the node speak over a socket: a head of kind and length, then the bytes.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import struct
import sys
import threading
import traceback
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping

from . import _native
from ._context import current_job

if TYPE_CHECKING:
    from ._functions import Offered

#: To the template 0 with a socket for a new worker, or the number of a worker to end; from it the number of
#: the new worker, or minus the system's error that kept it from being.
PID = struct.Struct("<q")
CALL, ITEM, END, VALUE, FAILED, PROGRESS, NEXT = range(7)

_HEAD = struct.Struct("<BQ")
#: Most bytes that are sent along with their head; longer ones are not copied for that.
_JOINED_BYTES = 64 << 10
#: Milliseconds after which the template looks again which workers have ended.
_REAP_MS = 500
_PR_SET_PDEATHSIG = 1


class LinkGone(Exception):
    """The process at the other end of a socket is gone."""


@contextmanager
def _whole(link: socket.socket) -> Iterator[None]:
    """Ends a link on which a frame was broken off: by an error, or by what a handler of signals raised."""
    try:
        yield
    except BaseException as error:
        with suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)
        raise LinkGone from error


def send(to: socket.socket, kind: int, body: bytes | memoryview = b"") -> None:
    """Sends a frame; raises `LinkGone`."""
    head = _HEAD.pack(kind, len(body))
    with _whole(to):
        if len(body) <= _JOINED_BYTES:
            to.sendall(head + body)
        else:
            to.sendall(head)
            to.sendall(body)


def receive(of: socket.socket) -> tuple[int, bytearray]:
    """The next frame; raises `LinkGone`."""
    with _whole(of):
        kind, length = _HEAD.unpack(exactly(of, _HEAD.size))
        return kind, exactly(of, length)


def exactly(of: socket.socket, length: int) -> bytearray:
    """So many bytes; raises `EOFError` when the other end is gone before."""
    body = bytearray(length)
    view = memoryview(body)
    while view:
        came = of.recv_into(view)
        if came == 0:
            raise EOFError
        view = view[came:]
    return body


def readable(of: socket.socket, wait_ms: float = 0) -> bool:
    """Whether something came, or the other end is gone."""
    waiting = select.poll()
    waiting.register(of, select.POLLIN)
    return bool(waiting.poll(wait_ms))


def close(link: socket.socket) -> None:
    """Closes a socket for whoever holds a copy of it too, such as a process that was forked later."""
    with suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)
    link.close()


class _WorkerJob:
    """A call, as the function sees it in its process."""

    def __init__(self, node: socket.socket, words: Mapping[str, Any]) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._ended = False
        self.call: str = words["call"]
        self.user: str = words["user"]
        self.groups: list[str] = words["groups"]
        #: A process is ended when its call is cancelled, so that it never sees it.
        self.cancelled = False

    def tell(self, kind: int, body: bytes = b"", *, last: bool = False) -> None:
        """Tells the node of the call; nothing once it has ended, which threads of the function may outlive."""
        with self._lock:
            if not self._ended:
                self._ended = last
                send(self._node, kind, body)

    def ask(self) -> bytearray | None:
        """The next item of the argument that is a stream; nothing after the last one."""
        with self._lock:
            if self._ended:
                return None
            send(self._node, NEXT)
            kind, item = receive(self._node)
        return item if kind == ITEM else None

    def progress(self, done: float | None, note: str) -> None:
        """Says how far the call has come."""
        self.tell(PROGRESS, _native.encode([done, note]))


class _WorkerItems:
    """The items of an argument, in the function's process."""

    def __init__(self, job: _WorkerJob, pickle: bool) -> None:
        self._job, self._pickle = job, pickle

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        item = self._job.ask()
        if item is None:
            raise StopIteration
        return _native.decode(item, pickle=self._pickle)


def _work(node: socket.socket, functions: Mapping[str, tuple[Offered, bool]], template: int) -> None:
    """Runs calls in this process until the node closes the socket, or the template ends."""
    _end_with(template)
    while True:
        _, body = receive(node)
        words = _native.decode(body)
        _, arguments = receive(node)
        offered, pickle = functions[words["function"]]
        job = _WorkerJob(node, words)
        token = current_job.set(job)
        try:
            _answer(job, offered, arguments, pickle)
        except LinkGone:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, the caller is told
            from ._functions import describe

            job.tell(FAILED, _native.encode(describe(error)), last=True)
        finally:
            current_job.reset(token)
            flush()


def flush() -> None:
    """Writes out what was printed: a forked process would print it again, or never."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _answer(job: _WorkerJob, offered: Offered, arguments: bytearray, pickle: bool) -> None:
    views = memoryview in offered.hints.values()
    args, kwargs = _native.decode_arguments(arguments, lambda: _WorkerItems(job, pickle), pickle=pickle, views=views)
    args, kwargs = offered.adapt(job, args, kwargs)
    result = offered.function(*args, **kwargs)
    if not offered.streams:
        job.tell(VALUE, _native.encode(result, pickle=pickle), last=True)
        return
    for item in result:
        job.tell(ITEM, _native.encode(item, pickle=pickle))
    job.tell(END, last=True)


def run_template(control: socket.socket, functions: Mapping[str, tuple[Offered, bool]]) -> None:
    """Forks a worker for each socket that comes, and ends all with the node."""
    import ctypes  # noqa: F401 - for the workers, which need not read it again

    workers: set[int] = set()
    try:
        while True:
            ready = readable(control, _REAP_MS)
            while workers:
                ended, _ = os.waitpid(-1, os.WNOHANG)
                if ended == 0:
                    break
                workers.discard(ended)
            if not ready:
                continue
            order, fds, _, _ = socket.recv_fds(control, PID.size, 1)
            if not order:
                break
            (pid,) = PID.unpack(order)
            if pid == 0:
                started = _fork_worker(control, fds, functions)
                if started > 0:
                    workers.add(started)
                control.sendall(PID.pack(started))
            elif pid in workers:  # Otherwise it has ended already.
                os.kill(pid, signal.SIGKILL)
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGKILL)


def _fork_worker(control: socket.socket, fds: list[int], functions: Mapping[str, tuple[Offered, bool]]) -> int:
    """The number of a new process, or minus the system's error that kept it from being."""
    if not fds:  # The system drops a socket for which a process has no number left.
        return -errno.EMFILE
    template = os.getpid()
    with socket.socket(fileno=fds[0]) as node:
        try:
            pid = os.fork()
        except OSError as error:
            return -(error.errno or errno.EAGAIN)
        if pid == 0:
            control.close()
            become(lambda: _work(node, functions, template))
        return pid


def _end_with(parent: int) -> None:
    """Lets this process be killed when its parent ends, however that ends; not known but on Linux."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def become(run: Callable[[], None]) -> None:
    """Goes on as another program that was forked, and ends with it."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the node, which ends its processes.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # The template waits for its workers itself.
        run()
    except (LinkGone, OSError):
        pass
    except BaseException:  # noqa: BLE001 - a fault of this module, which nobody else can tell
        traceback.print_exc()
    finally:
        os._exit(0)
