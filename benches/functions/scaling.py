"""What `scaling="auto"` brings: calls per second of a backlog beside those of one process, and how soon.

Run it with the interpreter that `run.sh` makes: `.venv/bin/python scaling.py [--seconds N]`. One function takes
20 ms of a processor, so that it gains what the machine has cores for; the other waits 20 ms and takes none.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from turns import machine  # noqa: E402

import r3mes  # noqa: E402

#: Seconds that one call takes of a processor, or waits.
CALL_S = 0.02
#: Processes that the function which waits may have.
MOST = 8
#: Calls that wait at a time.
CALLERS = 32
#: Seconds over which throughput is looked at.
WINDOW_S = 0.5
#: Seconds without a call after which processes that scaling added have ended, and some more.
IDLE_S = 15


def compute() -> int:
    """Takes its time of a processor, however many others want it too."""
    until = time.process_time() + CALL_S
    while time.process_time() < until:
        pass
    return os.getpid()


def wait() -> int:
    time.sleep(CALL_S)
    return os.getpid()


def node(address: str) -> None:
    made = r3mes.ComputeNode(address, "scaled")
    made.register(compute, name="compute_alone", isolation="process")
    made.register(compute, name="compute_scaled", scaling="auto")
    made.register(wait, name="wait_alone", isolation="process")
    made.register(wait, name="wait_scaled", scaling="auto", max_concurrent=MOST)
    made.serve()


async def backlog(client: r3mes.Client, name: str, seconds: float) -> tuple[list[float], set[int]]:
    """When each call of a backlog ended, in seconds since it began, and which processes ran them."""
    function, began, ended, ran = client.function(name), time.perf_counter(), [], set()

    async def calls() -> None:
        while time.perf_counter() - began < seconds:
            ran.add(await function())
            ended.append(time.perf_counter() - began)

    await asyncio.gather(*[calls() for _ in range(CALLERS)])
    return ended, ran


def rate(ended: list[float], until: float, window: float) -> float:
    """Calls per second in the seconds before a moment."""
    return sum(until - window < moment <= until for moment in ended) / window


def lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def measure(address: str, seconds: float) -> None:
    client = r3mes.Client(address)
    while len(client.functions()) < 4:
        time.sleep(0.1)
    print("| a call | one process, calls/s | `scaling=\"auto\"`, calls/s | times | s until then | processes | 15 s later |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, words in ("compute", "takes 20 ms of a processor"), ("wait", "waits 20 ms"):
        alone, _ = asyncio.run(backlog(client, f"{name}_alone", seconds))
        scaled, ran = asyncio.run(backlog(client, f"{name}_scaled", seconds))
        # The second half has what scaling comes to.
        one, all_ = rate(alone, seconds, seconds / 2), rate(scaled, seconds, seconds / 2)
        # From the first moment after which nine tenths of it are kept up.
        moments = [moment for moment in scaled if moment + WINDOW_S <= seconds]
        reached = next((at for at in moments if rate(scaled, at + WINDOW_S, WINDOW_S) >= 0.9 * all_), float("nan"))
        time.sleep(IDLE_S)
        left = sum(lives(process) for process in ran)
        print(f"| {words} | {one:.1f} | {all_:.1f} | {all_ / one:.2f} | {reached:.2f} | {len(ran)} | {left} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6, help="for which each backlog lasts")
    parser.add_argument("--node", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.node:
        return node(options.node)
    # Keys and settings of the node are nobody's.
    settings = tempfile.TemporaryDirectory()
    os.environ["XDG_CONFIG_HOME"] = settings.name
    cores = len(os.sched_getaffinity(0))
    print(f"{machine()}, {cores} of them for this program; Python {sys.version.split()[0]}\n", flush=True)
    with r3mes.Server(port=0) as server:
        other = subprocess.Popen([sys.executable, __file__, "--node", server.address], stdout=subprocess.DEVNULL)
        try:
            measure(server.address, options.seconds)
        finally:
            other.terminate()
            other.wait()
    if cores < 4:
        print(f"\nThree times the throughput of what computes needs more than {cores} cores.")


if __name__ == "__main__":
    main()
