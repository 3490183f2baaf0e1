"""Sides of a comparison that take turns, so that whatever else the machine does meets them alike."""

import os
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Side:
    """A program that answers each line with `WALL_MS CPU_MS [MORE]`."""

    def __init__(self, command):
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def ask(self, line):
        """Sends `line`; returns milliseconds of the clock, of the processor, and what else was said."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if len(answer) < 2:
            raise SystemExit(f"{self.process.args[0]} gave no answer to `{line}`: see its error above")
        return float(answer[0]), float(answer[1]), answer[2:]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def cargo_bench(package, bench, *arguments):
    """This project's side: a benchmark target that reads commands."""
    return Side(["cargo", "bench", "--locked", "--quiet", "-p", package, "--bench", bench, "--", *arguments])


def least(turns, rounds, threads):
    """Calls every function of `turns` once a round; returns the least milliseconds of each.

    With one thread the processor's time counts, which other processes hardly change; with more,
    the clock's.
    """
    best = {name: float("inf") for name in turns}
    for _ in range(rounds):
        for name, turn in turns.items():
            wall, cpu, *_ = turn()
            best[name] = min(best[name], cpu if threads == 1 else wall)
    return best


def machine():
    """The processor's name and the cores there are."""
    with open("/proc/cpuinfo") as info:
        name = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), "unknown")
    return f"{name}, {os.cpu_count()} cores"
