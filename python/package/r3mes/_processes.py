"""Functions in processes of their own: one that blocks, crashes or is cancelled takes nothing else along.

The node forks a template before it has threads of its own; the template forks the workers, so that they
have the node's functions without importing anything again. A worker runs one call at a time. It and the
node speak over a socket: a head of kind and length, then the bytes.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping

from . import _native
from ._context import current_job
from .errors import CallCancelledError

if TYPE_CHECKING:
    from ._functions import Offered

#: Seconds between two looks whether the call that a process runs was cancelled.
LOOK_S = 0.1
#: Seconds after which a process that scaling added and that had no call ends.
IDLE_S = 10.0

_HEAD = struct.Struct("<BQ")
_PID = struct.Struct("<q")
_CALL, _ITEM, _END, _VALUE, _FAILED, _PROGRESS, _NEXT = range(7)


def _send(to: socket.socket, kind: int, body: bytes | memoryview = b"") -> None:
    to.sendall(_HEAD.pack(kind, len(body)))
    if body:
        to.sendall(body)


def _receive(of: socket.socket) -> tuple[int, bytearray]:
    kind, length = _HEAD.unpack(_exactly(of, _HEAD.size))
    return kind, _exactly(of, length)


def _exactly(of: socket.socket, length: int) -> bytearray:
    body = bytearray(length)
    view = memoryview(body)
    while view:
        came = of.recv_into(view)
        if came == 0:
            raise EOFError
        view = view[came:]
    return body


class _WorkerJob:
    """A call, as the function sees it in its process."""

    def __init__(self, node: socket.socket, words: Mapping[str, Any]) -> None:
        self._node = node
        self.call: str = words["call"]
        self.user: str = words["user"]
        self.groups: list[str] = words["groups"]
        #: A process is ended when its call is cancelled, so that it never sees it.
        self.cancelled = False

    def progress(self, done: float | None, note: str) -> None:
        _send(self._node, _PROGRESS, _native.encode([done, note]))


class _WorkerItems:
    """The items of an argument, in the function's process."""

    def __init__(self, node: socket.socket, pickle: bool) -> None:
        self._node, self._pickle = node, pickle

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        _send(self._node, _NEXT)
        kind, item = _receive(self._node)
        if kind == _END:
            raise StopIteration
        return _native.decode(item, pickle=self._pickle)


def _work(node: socket.socket, functions: Mapping[str, tuple[Offered, bool]]) -> None:
    """Runs calls in this process until the node closes the socket."""
    while True:
        _, body = _receive(node)
        words = _native.decode(body)
        kind, arguments = _receive(node)
        assert kind == _CALL
        offered, pickle = functions[words["function"]]
        job = _WorkerJob(node, words)
        token = current_job.set(job)
        try:
            _answer(node, job, offered, arguments, pickle)
        except (BrokenPipeError, EOFError):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, the caller is told
            from ._functions import describe

            _send(node, _FAILED, _native.encode(describe(error)))
        finally:
            current_job.reset(token)
            _flush()


def _flush() -> None:
    """Writes out what was printed: a forked process would print it again, or never."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _answer(node: socket.socket, job: _WorkerJob, offered: Offered, arguments: bytearray, pickle: bool) -> None:
    views = memoryview in offered.hints.values()
    args, kwargs = _native.decode_arguments(arguments, lambda: _WorkerItems(node, pickle), pickle=pickle, views=views)
    args, kwargs = offered.adapt(job, args, kwargs)
    result = offered.function(*args, **kwargs)
    if not offered.streams:
        _send(node, _VALUE, _native.encode(result, pickle=pickle))
        return
    for item in result:
        _send(node, _ITEM, _native.encode(item, pickle=pickle))
    _send(node, _END)


def _run_template(control: socket.socket, functions: Mapping[str, tuple[Offered, bool]]) -> None:
    """Forks a worker for each socket that comes, and ends all with the node."""
    workers: set[int] = set()
    while True:
        ready, _, _ = select.select([control], [], [], 0.5)
        while workers:
            ended, _ = os.waitpid(-1, os.WNOHANG)
            if ended == 0:
                break
            workers.discard(ended)
        if not ready:
            continue
        order, fds, _, _ = socket.recv_fds(control, _PID.size, 1)
        if not order:
            break
        if not fds:  # The process of that number is to be ended, unless it has ended already.
            (pid,) = _PID.unpack(order)
            if pid in workers:
                os.kill(pid, signal.SIGKILL)
            continue
        pid = os.fork()
        if pid == 0:
            control.close()
            _become(lambda: _work(socket.socket(fileno=fds[0]), functions))
        os.close(fds[0])
        workers.add(pid)
        control.sendall(_PID.pack(pid))
    for pid in workers:
        os.kill(pid, signal.SIGKILL)


def _become(run: Callable[[], None]) -> None:
    """Goes on as another program that was forked, and ends with it."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the node, which ends its processes.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        run()
    except (EOFError, OSError):
        pass
    finally:
        os._exit(0)


class _Worker:
    """A process that runs one call at a time, as the node sees it."""

    def __init__(self, link: socket.socket, pid: int) -> None:
        self.link, self.pid = link, pid
        self.idle_since = time.monotonic()


class Processes:
    """The processes of a node: as many as calls run, made when they are needed.

    :param functions: what they run: functions by name, and whether pickled values are read.
    """

    def __init__(self, functions: Mapping[str, tuple[Offered, bool]]) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._busy = 0
        self._closed = threading.Event()
        self._control, far = socket.socketpair()
        _flush()
        self._template = os.fork()
        if self._template == 0:
            self._control.close()
            _become(lambda: _run_template(far, functions))
        far.close()
        threading.Thread(target=self._shrink, name="r3mes processes", daemon=True).start()

    @property
    def count(self) -> int:
        """Processes that run."""
        with self._lock:
            return self._busy + len(self._idle)

    def _take(self) -> _Worker:
        with self._lock:
            self._busy += 1
            if self._idle:
                return self._idle.pop()
            try:
                near, far = socket.socketpair()
                with far:
                    socket.send_fds(self._control, [_PID.pack(0)], [far.fileno()])
                return _Worker(near, _PID.unpack(_exactly(self._control, _PID.size))[0])
            except (OSError, EOFError):
                self._busy -= 1
                raise RuntimeError("the node cannot start processes any more: it ends") from None

    def _give_back(self, worker: _Worker, well: bool) -> None:
        with self._lock:
            self._busy -= 1
            if well and not self._closed.is_set():
                worker.idle_since = time.monotonic()
                self._idle.append(worker)
                return
        self._end(worker)

    def _end(self, worker: _Worker) -> None:
        worker.link.close()
        try:
            self._control.sendall(_PID.pack(worker.pid))
        except OSError:
            pass  # The template is gone, and its processes with it.

    def _shrink(self) -> None:
        """Ends processes that have nothing to do, but for the last one."""
        while not self._closed.wait(min(1.0, IDLE_S / 4)):
            before = time.monotonic() - IDLE_S
            with self._lock:
                ended = [worker for worker in self._idle if worker.idle_since < before]
                if len(ended) == self._busy + len(self._idle):
                    ended = ended[:-1]
                self._idle = [worker for worker in self._idle if worker not in ended]
            for worker in ended:
                self._end(worker)

    def run(self, job: _native.Job, name: str) -> None:
        """Runs a call in a process; a cancelled one ends with it, within `LOOK_S` seconds."""
        worker, well = self._take(), False
        try:
            words = {"function": name, "call": job.call, "user": job.user, "groups": job.groups}
            _send(worker.link, _CALL, _native.encode(words))
            _send(worker.link, _CALL, job.raw())
            well = self._follow(job, worker.link)
        except CallCancelledError:
            job.fail("cancelled", "the call was cancelled, and its process ended")
        except (EOFError, OSError):
            job.fail("internal", f"the process that ran {name} ended before the call did")
        finally:
            self._give_back(worker, well)

    def _follow(self, job: _native.Job, link: socket.socket) -> bool:
        """Passes on what the process says of a call; whether the process can take another one."""
        waiting = select.poll()
        waiting.register(link, select.POLLIN)
        while True:
            while not waiting.poll(LOOK_S * 1000):
                if job.cancelled:
                    raise CallCancelledError
            kind, body = _receive(link)
            if kind == _VALUE:
                job.finish_raw(bytes(body))
                return True
            if kind == _FAILED:
                job.fail(*_native.decode(body))
                return True
            if kind == _END:
                job.finish_stream()
                return True
            if kind == _PROGRESS:
                job.progress(*_native.decode(body))
            elif kind == _NEXT:
                item = job.next_raw()
                _send(link, _END if item is None else _ITEM, item or b"")
            elif not job.send_raw(bytes(body)):
                raise CallCancelledError

    def stop(self) -> None:
        """Ends all of them."""
        self._closed.set()
        with self._lock:
            idle, self._idle = self._idle, []
            self._control.close()
        for worker in idle:
            worker.link.close()
        os.waitpid(self._template, 0)
