"""Functions in processes of their own: isolation, scaling, cancellation, and what they tell of the machine."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import numpy
import pytest

import r3mes
from r3mes import Client, ComputeNode, ExecutionContext, Progress, _processes, remote

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
    monkeypatch.setattr(_processes, "IDLE_S", 0.2)
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
