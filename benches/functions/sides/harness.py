"""What every side does: answers commands with what calls cost, as `benches/turns.py` asks for it."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any, Awaitable, Callable

#: What short calls carry, there and back.
ARGUMENT = b"argument"


class Caller:
    """Calls an echo and a stream of another process. A side overrides what it can do."""

    async def open(self, address: str) -> None:
        """Connects."""
        raise NotImplementedError

    async def call(self, data: bytes) -> bytes:
        """Calls the echo."""
        raise NotImplementedError

    #: Calls the echo without an event loop, where that is how the side is used.
    blocking: Callable[[bytes], bytes] | None = None

    async def items(self, count: int) -> int:
        """How many of so many items of eight bytes have come."""
        raise NotImplementedError


async def sequential(caller: Caller, seconds: float) -> str:
    """Microseconds of a call: the median, and those that one in a hundred exceeds."""
    times, until, call, blocking = [], time.perf_counter() + seconds, caller.call, caller.blocking

    def calls() -> None:
        assert blocking is not None
        while time.perf_counter() < until:
            began = time.perf_counter()
            blocking(ARGUMENT)
            times.append(time.perf_counter() - began)

    if blocking is not None:
        # A thread without a loop, as a program that knows of none.
        await asyncio.to_thread(calls)
    while time.perf_counter() < until:
        began = time.perf_counter()
        await call(ARGUMENT)
        times.append(time.perf_counter() - began)
    times.sort()
    return f"{times[len(times) // 2] * 1e6:.1f} {times[len(times) * 99 // 100] * 1e6:.1f}"


async def concurrent(caller: Caller, seconds: float, callers: int) -> str:
    """Calls per second with so many in flight."""
    began, made = time.perf_counter(), 0

    async def calls() -> None:
        nonlocal made
        while time.perf_counter() - began < seconds:
            await caller.call(ARGUMENT)
            made += 1

    await asyncio.gather(*[calls() for _ in range(callers)])
    return f"{made / (time.perf_counter() - began):.0f}"


async def round_trip(caller: Caller, size: int) -> str:
    """Milliseconds for so many bytes there and back."""
    data = bytes(size)
    began = time.perf_counter()
    back = await caller.call(data)
    took = time.perf_counter() - began
    if len(back) != size:
        raise SystemExit(f"{len(back)} bytes came back, not {size}")
    return f"{took * 1e3:.3f}"


async def stream(caller: Caller, count: int) -> str:
    """Items per second."""
    began = time.perf_counter()
    came = await caller.items(count)
    took = time.perf_counter() - began
    if came != count:
        raise SystemExit(f"{came} items came, not {count}")
    return f"{count / took:.0f}"


async def _serve(caller: Caller, address: str) -> None:
    # What libraries print is no answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    await caller.open(address)
    commands: dict[str, Callable[..., Awaitable[str]]] = {
        "sequential": lambda seconds: sequential(caller, float(seconds)),
        "concurrent": lambda seconds, callers: concurrent(caller, float(seconds), int(callers)),
        "bytes": lambda size: round_trip(caller, int(size)),
        "items": lambda count: stream(caller, int(count)),
    }
    while line := await asyncio.to_thread(sys.stdin.readline):
        name, *arguments = line.split()
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            answer = await commands[name](*arguments)
        except NotImplementedError:
            answer = "-"
        except Exception as error:  # one thing that a side cannot do leaves the others
            print(f"{name}: {error!r:.300}", file=sys.stderr)
            answer = "-"
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"{wall * 1e3:.3f} {cpu * 1e3:.3f} {answer}", file=answers, flush=True)


def run(caller: Caller, roles: dict[str, Callable[..., Any]]) -> None:
    """Runs what the command line says: `call ADDRESS`, or a role of the side's other end."""
    role, *arguments = sys.argv[1:]
    if role == "call":
        asyncio.run(_serve(caller, *arguments))
    else:
        roles[role](*arguments)
