"""Functions in processes of their own: isolation, scaling, cancellation, and what they tell of the machine."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator
from unittest.mock import Mock

import numpy
import pytest

import r3mes
from r3mes import Client, ComputeNode, ExecutionContext, Progress, _native, _processes, remote

Make = Callable[..., ComputeNode]


def until(condition: Callable[[], Any]) -> None:
    """Waits for something that must come true."""
    late = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < late, "it did not come true in 60 s"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_a_function_in_a_process_is_like_any_other(node: Make) -> None:
    made, offset = node(), 3

    @made.register(isolation="process")
    def add(context: ExecutionContext, array: numpy.ndarray, times: int = 1) -> Any:
        assert context.call_id and context.user == ""
        return [os.getpid(), array + offset * times]

    @made.register(isolation="process")
    def doubled(items: Iterator[int]) -> Iterator[int]:
        for item in items:
            yield 2 * item

    @made.register(isolation="process")
    def fail() -> None:
        raise LookupError("gone")

    made.start()
    pid, array = remote("node", "add")(numpy.arange(3), times=2)
    assert pid != os.getpid() and (array == [6, 7, 8]).all()
    assert remote("node", "add")(numpy.zeros(1))[0] == pid
    assert list(remote("node", "doubled", stream=True)(iter(range(500)))) == list(range(0, 1000, 2))
    with pytest.raises(LookupError, match="gone") as raised:
        remote("node", "fail")()
    trace = getattr(raised.value, "remote_traceback")
    assert 'raise LookupError("gone")' in trace and "r3mes/_processes.py" not in trace
    made.stop()
    until(lambda: not alive(pid))


def test_what_a_function_raises_is_never_taken_for_a_lost_process(node: Make) -> None:
    made = node()

    @made.register(isolation="process")
    def read(kind: str) -> None:
        raise {"end": EOFError, "pipe": BrokenPipeError}[kind]("of the function's own")

    made.start()
    for kind in ("end", "pipe"):
        with pytest.raises((EOFError, r3mes.RemoteError), match="of the function's own"):
            remote("node", "read")(kind)


def test_what_threads_say_of_a_call_goes_whole_and_never_into_the_next(node: Make) -> None:
    made, go, said = node(), threading.Event(), threading.Event()

    @made.register(isolation="process")
    def leave(context: ExecutionContext) -> int:
        def late() -> None:
            go.wait()
            context.progress(0.9, "late")
            said.set()

        threading.Thread(target=late, daemon=True).start()
        return os.getpid()

    @made.register(isolation="process")
    def after() -> list[Any]:
        go.set()
        return [said.wait(60), os.getpid()]

    @made.register(isolation="process")
    def crowd(context: ExecutionContext) -> Iterator[int]:
        def tell() -> None:
            for _ in range(200):
                context.progress(0.5, "n" * 1000)

        threads = [threading.Thread(target=tell) for _ in range(4)]
        for thread in threads:
            thread.start()
        yield from range(200)
        for thread in threads:
            thread.join()

    made.start()
    pid = remote("node", "leave")()
    seen: list[Progress] = []
    assert remote("node", "after").with_progress(seen.append)() == [True, pid] and seen == []
    assert list(remote("node", "crowd", stream=True)()) == list(range(200))


def test_a_process_that_always_has_something_to_say_is_killed_too(node: Make, tmp_path: Path) -> None:
    made = node()

    @made.register(isolation="process")
    def chatter(context: ExecutionContext, path: str) -> None:
        Path(path).write_text(str(os.getpid()))
        while True:
            context.progress(0.5, "still")

    made.start()
    told = tmp_path / "pid"

    async def main() -> None:
        call = asyncio.ensure_future(remote("node", "chatter")(str(told)))
        await asyncio.to_thread(until, lambda: told.exists() and told.read_text())
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(main())
    until(lambda: not alive(int(told.read_text())))


def test_cancelling_ends_the_process_and_the_next_call_has_another(node: Make, tmp_path: Path) -> None:
    made = node()

    @made.register(isolation="process")
    def stuck(path: str) -> None:
        Path(path).write_text(str(os.getpid()))
        signal.pause()

    @made.register(isolation="process")
    def fine() -> str:
        return "fine"

    made.start()
    told = tmp_path / "pid"

    async def main() -> None:
        call = asyncio.ensure_future(remote("node", "stuck")(str(told)))
        await asyncio.to_thread(until, lambda: told.exists() and told.read_text())
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(main())
    until(lambda: not alive(int(told.read_text())))
    with pytest.raises(r3mes.CallTimeoutError):
        remote("node", "stuck", timeout=0.2)(str(told))
    assert remote("node", "fine")() == "fine"


def test_a_process_that_dies_fails_its_call_alone(node: Make) -> None:
    made = node()

    @made.register(isolation="process")
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @made.register(isolation="process")
    def fine() -> str:
        return "fine"

    made.start()
    with pytest.raises(r3mes.errors.InternalError, match="ended before"):
        remote("node", "die")()
    assert remote("node", "fine")() == "fine"


def test_an_idle_process_that_died_fails_no_call(node: Make) -> None:
    made = node()

    @made.register(isolation="process")
    def pid() -> int:
        return os.getpid()

    made.start()
    first = remote("node", "pid")()
    os.kill(first, signal.SIGKILL)
    until(lambda: not alive(first))
    assert remote("node", "pid")() != first


def test_a_process_that_cannot_be_made_fails_its_call_alone(node: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made, fork, forks = node(), os.fork, []

    def sparing() -> int:
        forks.append(os.getpid())
        if len(forks) == 2:  # The first is the template; it has a list of its own from then on.
            raise BlockingIOError(errno.EAGAIN, "no more processes")
        return fork()

    @made.register(isolation="process")
    def fine() -> str:
        return "fine"

    monkeypatch.setattr(os, "fork", sparing)
    made.start()
    with pytest.raises(r3mes.errors.InternalError, match=f"cannot start a process: {os.strerror(errno.EAGAIN)}"):
        remote("node", "fine")()
    assert remote("node", "fine")() == "fine"


def test_a_node_whose_template_is_killed_leaves_no_process_and_ends_with_an_error(node: Make) -> None:
    made = node()

    @made.register(isolation="process")
    def pid() -> int:
        return os.getpid()

    made.start()
    worker, processes = remote("node", "pid")(), made._processes
    assert processes is not None
    os.kill(processes._template, signal.SIGKILL)
    until(lambda: not alive(worker))
    with pytest.raises(RuntimeError, match="the process from which this node forks others is gone"):
        made.wait()


def test_a_call_without_a_template_says_so() -> None:
    lost: list[str] = []
    processes = _processes.Processes({}, lost.append)
    os.kill(processes._template, signal.SIGKILL)
    until(lambda: not alive(processes._template))
    job = Mock(spec=_native.Job)
    processes.run(job, "any")
    job.fail.assert_called_once_with("internal", _processes.LOST)
    assert lost == [_processes.LOST] and processes.count == 0
    processes.stop()


def test_nodes_end_whatever_was_forked_later_and_whoever_ignores_children(node: Make) -> None:
    first, second = node("first"), node("second")

    def pid() -> int:
        return os.getpid()

    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        pids = []
        for made in (first, second):
            made.register(isolation="process")(pid)
            made.start()  # The second one's template has copies of all that is open in the first one.
            pids.append(remote(made.node_id, "pid")())
        stopping = threading.Thread(target=first.stop, daemon=True)
        stopping.start()
        stopping.join(60)
        assert not stopping.is_alive()
        until(lambda: not alive(pids[0]))
        assert remote("second", "pid")() == pids[1]
        second.stop()
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_node_that_cannot_start_leaves_nothing_behind(node: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made, templates = node(), []

    def refuse(*_: Any) -> None:
        assert made._processes is not None
        templates.append(made._processes._template)
        raise OSError("no more threads")

    made.register(isolation="process")(lambda: None)
    with monkeypatch.context() as patched:
        patched.setattr(_native, "NodeHandle", refuse)
        with pytest.raises(OSError, match="no more threads"):
            made.start()
    assert made._processes is made._threads is None and not alive(templates[0])


def test_a_function_in_a_process_calls_what_its_node_called_before(node: Make) -> None:
    adder, caller = node("adder"), node("caller")

    @adder.register
    def add(a: int, b: int) -> int:
        return a + b

    adder.start()
    stub = remote("adder", "add")
    assert stub(1, 2) == 3

    @caller.register(isolation="process")
    def through(a: int) -> Any:
        return stub(a, 2)

    caller.start()
    assert remote("caller", "through", timeout=60)(40) == 42


NODE = """
import os, sys, threading
from r3mes import ComputeNode, Server

server = Server(0).start()
node = ComputeNode(server.address, "node")

@node.register(isolation="process")
def hold() -> None:
    print(os.getpid(), flush=True)
    threading.Event().wait()

node.start()
from r3mes import remote
remote("node", "hold")()
"""


def test_a_killed_node_leaves_no_process_behind() -> None:
    with subprocess.Popen([sys.executable, "-c", NODE], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        assert alive(pid)
        program.kill()
        until(lambda: not alive(pid))


def test_a_context_goes_by_its_type_wherever_it_stands(node: Make) -> None:
    made = node()

    @made.register
    def named(*args: int, context: ExecutionContext) -> list[Any]:
        return [*args, bool(context.call_id)]

    @made.register
    def second(first: int, context: ExecutionContext, third: int = 0) -> list[Any]:
        return [first, bool(context.call_id), third]

    made.start()
    assert remote("node", "named")(1, 2) == [1, 2, True]
    assert remote("node", "second")(1) == [1, True, 0] and remote("node", "second")(1, 2) == [1, True, 2]


def test_a_backlog_raises_processes_and_quiet_lets_them_go(
    node: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = node()

    @made.register(scaling="auto", max_concurrent=4)
    def meet(folder: str) -> int:
        (Path(folder) / str(os.getpid())).touch()
        until(lambda: len(list(Path(folder).iterdir())) == 4)
        return os.getpid()

    made.start()
    processes = made._processes
    assert processes is not None and processes.count == 0

    async def main() -> list[int]:
        return await asyncio.gather(*[remote("node", "meet")(str(tmp_path)) for _ in range(12)])

    assert len(set(asyncio.run(main()))) == 4
    monkeypatch.setattr(_processes, "IDLE_S", 0.2)
    until(lambda: processes.count == 1)


def test_options_that_contradict_each_other_are_refused(node: Make) -> None:
    made = node()

    async def coroutine() -> None: ...

    with pytest.raises(ValueError, match="event loop"):
        made.register(scaling="auto")(coroutine)
    with pytest.raises(ValueError, match="forbids"):
        made.register(scaling="auto", isolation="thread")(lambda: None)
    with pytest.raises(ValueError, match="'auto', not 'more'"):
        made.register(scaling="more")(lambda: None)
    with pytest.raises(ValueError, match="'process', not 'vm'"):
        made.register(isolation="vm")(lambda: None)


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_progress_reaches_the_caller(node: Make, isolation: str) -> None:
    made = node()

    @made.register(name="train", isolation=isolation)
    def training(context: ExecutionContext) -> str:
        context.progress(0.5, "half")
        return "done"

    @made.register
    def layers(context: ExecutionContext) -> Iterator[int]:
        context.progress(None, "first")
        yield 1

    made.start()
    seen: list[Progress] = []

    @remote(node_id="node", progress=seen.append)
    def train() -> str: ...

    call = remote("node", "train").with_progress(seen.append)
    assert train() == call() == "done" and seen == [Progress(0.5, "half")] * 2

    async def main() -> None:
        assert await call() == "done"

        def refuse(progress: Progress) -> None:
            raise InterruptedError(progress.note)

        with pytest.raises(InterruptedError, match="half"):
            await remote("node", "train").with_progress(refuse)()

    asyncio.run(main())
    assert seen == [Progress(0.5, "half")] * 3
    stream = remote("node", "layers", stream=True)()
    assert next(stream) == 1 and stream.progress == Progress(None, "first")

    def stop(progress: Progress) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        remote("node", "train").with_progress(stop)()


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_note_that_is_too_long_reaches_the_caller_in_part(node: Make, isolation: str) -> None:
    made = node()

    @made.register(isolation=isolation)
    def train(context: ExecutionContext) -> str:
        context.progress(0.5, "n" * 100_000)
        return "done"

    made.start()
    seen: list[Progress] = []
    assert remote("node", "train").with_progress(seen.append)() == "done"
    assert seen == [Progress(0.5, "n" * 4096 + " [95904 bytes left out]")]


def test_a_watcher_that_gives_up_and_raises_holds_up_no_other_call(
    node: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = node()

    @made.register
    def train(context: ExecutionContext) -> str:
        context.progress(0.5, "half")
        return "done"

    made.start()
    unraisable: list[Any] = []
    unhandled: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: unraisable.append(told.exc_value))

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, told: unhandled.append(told))
        calls: list[asyncio.Future[str]] = []

        def give_up(_: Progress) -> None:
            calls[0].cancel()
            raise InterruptedError("given up")

        stub = remote("node", "train").with_progress(give_up)
        await asyncio.to_thread(stub._connect)
        calls.append(stub())
        with pytest.raises(asyncio.CancelledError):
            await calls[0]
        assert await remote("node", "train")() == "done"

    asyncio.run(main())
    assert [str(error) for error in unraisable] == ["given up"] and unhandled == []


def test_a_node_tells_how_busy_its_machine_is(node: Make) -> None:
    node().start()
    client = Client()

    def seen() -> Any:
        (view,) = client.nodes()
        return view if view["cpu"] is not None else None

    until(seen)
    view = seen()
    assert 0 <= view["cpu"] <= 1 and 0 < view["memory"] < 1
    if not Path("/dev/nvidia0").exists():
        assert view["gpu"] is None
