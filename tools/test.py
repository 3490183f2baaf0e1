"""Passes every test, and with --lint the lints: what tools/test runs once there is a Python.

What mostly waits, for networks and their blocks, runs beside what computes, and beside that, with what
is left of the processors, what cargo has to build. Each is shown when it has ended. All go on where one
fails; at the end those that failed are named. Ctrl-C ends all.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: The tests whose networks mostly wait for their blocks, the longest first; and how many run at once.
NETWORKS, NETWORKS_AT_ONCE = ["hosts", "network", "chains", "testnet"], 2
#: How willingly each yields the processors: networks have deadlines, what computes has none.
NETWORK, COMPUTATION, BUILD = 0, 10, 19
#: Seconds for a process to end by itself once it is asked to.
PATIENCE = 10


@dataclass
class Job:
    """Something to pass: a command, shown under its name."""

    name: str
    command: Sequence[str | Path]
    folder: Path = ROOT
    niceness: int = NETWORK


@dataclass
class Jobs:
    """What runs, and what has failed."""

    running: set[subprocess.Popen[bytes]] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)
    over: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, *lanes: Iterable[Job]) -> None:
        """Runs lanes beside each other, and in each lane, which lanes may share, one job after another."""
        threads = [threading.Thread(target=self._follow, args=[lane]) for lane in lanes]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException:
            self._end()
            raise
        if self.failed:
            sys.exit(f"\ntest: failed: {', '.join(self.failed)}")

    def _follow(self, lane: Iterable[Job]) -> None:
        for job in lane:
            if self.over:
                return
            self._pass(job)

    def _pass(self, job: Job) -> None:
        began = time.monotonic()
        with tempfile.TemporaryFile() as said:
            with self.lock:
                if self.over:
                    return
                # A process group of its own, to be ended as one; no session, in which niceness would
                # be among its own processes alone.
                process = subprocess.Popen(
                    ["nice", "-n", str(job.niceness), *job.command],
                    cwd=job.folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said, process_group=0,
                )  # fmt: skip
                self.running.add(process)
            status = process.wait()
            with self.lock:
                self.running.discard(process)
                if self.over:
                    return
                if status != 0:
                    self.failed.append(job.name)
                outcome = "passed" if status == 0 else "FAILED"
                print(f"\n==> {job.name}: {outcome} in {time.monotonic() - began:.0f} s", flush=True)
                said.seek(0)
                sys.stdout.buffer.write(said.read())
                sys.stdout.buffer.flush()

    def _end(self) -> None:
        with self.lock:
            self.over = True
            left = list(self.running)
        for process in left:
            _signal(process, signal.SIGTERM)
        for process in left:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                pass
            _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass


class Shared:
    """A lane that several threads take their jobs from."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs, self._lock = iter(jobs), threading.Lock()

    def __iter__(self) -> Shared:
        return self

    def __next__(self) -> Job:
        with self._lock:
            return next(self._jobs)


def build(messages: Path) -> Job:
    """The build of all tests, and of the program r3mes with the same features."""
    cargo = "cargo test --workspace --locked --quiet --no-run --message-format json-render-diagnostics"
    return Job("build of the tests", ["sh", "-c", f'{cargo} >"$0"', messages])


def built(messages: Path) -> tuple[Path, dict[str, Job]]:
    """The program r3mes, and the tests, each to be run in its crate's folder as cargo does it."""
    program, tests = Path(), {}
    for line in messages.read_text().splitlines():
        message = json.loads(line)
        if message["reason"] != "compiler-artifact" or not message["executable"]:
            continue
        target, executable = message["target"], Path(message["executable"])
        if message["profile"]["test"]:
            crate = Path(message["manifest_path"]).parent
            name = f"{crate.name}, {target['kind'][0]} {target['name']}"
            tests[name] = Job(f"tests: {name}", [executable, "--quiet"], crate, COMPUTATION)
        elif target["name"] == "r3mes":
            program = executable
    return program, tests


def demonstration(program: Path, folder: Path) -> Job:
    """The main job as users run it; nothing of it may stay behind."""
    script = '"$0" demo --liar --check --port 0 --dir "$1"; [ ! -e "$1" ] || { echo "it left $1 behind"; exit 1; }'
    return Job("the demo with a liar, checked", ["sh", "-ec", script, program, folder])


def main() -> None:
    """Passes all, or ends with 1 and the names of what failed."""
    if unknown := [option for option in sys.argv[1:] if option != "--lint"]:
        print(f"test: there is no {unknown[0]}: --lint alone is known", file=sys.stderr)
        sys.exit(2)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), lint="--lint" in sys.argv)


def run(folder: Path, lint: bool) -> None:
    """Builds the tests while it sets up what they need, then passes all. Leaves files in the folder."""
    jobs, messages = Jobs(), folder / "messages.json"
    jobs.run([Job("setup", ["tools/setup"])], [build(messages)])
    program, tests = built(messages)
    os.environ["R3MES_BINARY"] = str(program)

    networks = [demonstration(program, folder / "demo")]
    for name in NETWORKS:
        test = tests.pop(f"node, test {name}")
        networks.append(replace(test, niceness=NETWORK))
    computations = list(tests.values())
    if os.environ.get("R3MES_SKIP_PYTHON") != "1":
        pytest = [ROOT / "python/.venv/bin/python", "-m", "pytest"]
        computations += [
            Job("the Python package", pytest, ROOT / "python", COMPUTATION),
            Job("the examples of remote functions", ["tools/examples"], niceness=COMPUTATION),
        ]
    doctests = ["cargo", "test", "--workspace", "--locked", "--quiet", "--doc"]
    builds = [
        *([Job("lints", ["tools/lint"], niceness=BUILD)] if lint else []),
        Job("the examples in the documentation", doctests, niceness=BUILD),
        Job("golden hashes: every back end of this machine, and aarch64", ["tools/golden"], niceness=BUILD),
    ]
    shared = Shared(networks)
    jobs.run(*[shared] * NETWORKS_AT_ONCE, computations, builds)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ntest: interrupted")
