"""Remote functions over loopback beside other programs, in turns. Run it by `run.sh`.

Client, gateway (where there is one) and node are processes of their own. One call after the other is made as
each library is used without an event loop, where that can be; many at a time, and streams, by `asyncio`, but
for easyremote, which is called by as many threads. The gateway here is the package's `Server`.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from turns import ROOT, Side, machine  # noqa: E402

SIDES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sides")
#: Each side's program and the processes at its other end, in the order in which they start.
PROGRAMS = {
    "r3mes": ("r3mes_side.py", ["gateway", "node"]),
    "nats-py": ("nats_side.py", ["gateway", "node"]),
    "grpcio": ("grpc_side.py", ["node"]),
    "Ray": ("ray_side.py", []),
    "easyremote": ("easyremote_side.py", ["gateway", "node"]),
}
CALLERS = 64
#: What is measured: its name, unit and how it is written, and whether less of it is better.
FIGURES = {
    "p50": ("call, median, ms", ".3f", True),
    "p99": ("call, 99%, ms", ".3f", True),
    "calls": (f"calls/s, {CALLERS} at a time", ".0f", False),
    "10 MB": ("10 MB there and back, ms", ".1f", True),
    "1 GB": ("1 GB there and back, s", ".2f", True),
    "items": ("stream, items/s", ".0f", False),
}


def address():
    """An address that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return "127.0.0.1:%d" % listener.getsockname()[1]


class Peer:
    """A caller and the processes that it calls."""

    def __init__(self, name):
        program, self.roles = PROGRAMS[name]
        self.name, self.address, self.best = name, address(), {}
        self.command = [sys.executable, os.path.join(SIDES, program)]
        self.others, self.caller = [], None

    def start(self):
        for role in self.roles:
            self.others.append(subprocess.Popen([*self.command, role, self.address], cwd=ROOT, stdout=subprocess.DEVNULL))
            if role == "gateway":
                self.until_open()
        self.caller = Side([*self.command, "call", self.address])

    def until_open(self):
        until = time.monotonic() + 60
        host, port = self.address.split(":")
        while True:
            try:
                socket.create_connection((host, int(port)), 1).close()
                return
            except OSError:
                if time.monotonic() > until:
                    raise SystemExit(f"the gateway of {self.name} does not answer at {self.address}")
                time.sleep(0.1)

    def take(self, line, *figures, scale=1.0):
        """Asks for figures and keeps the best of each."""
        *_, answer = self.caller.ask(line)
        for figure, text in zip(figures, answer):
            if text == "-":
                continue
            value, known = float(text) * scale, self.best.get(figure)
            less = FIGURES[figure][2]
            if known is None or (value < known) == less:
                self.best[figure] = value

    def close(self):
        if self.caller:
            self.caller.close()
        for process in reversed(self.others):
            process.terminate()
        for process in self.others:
            process.wait()


def in_rust(seconds):
    """Client and node in Rust, by the bench target of the crate."""
    command = ["cargo", "bench", "--locked", "--quiet", "-p", "r3mes-functions", "--bench", "loopback", "--", seconds]
    lines = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    rows = {cell[0]: cell[1].split()[0] for cell in cells if len(cell) == 2 and cell[1].split()}
    names = {
        "call, median": ("p50", 1e-3),
        "call, 99%": ("p99", 1e-3),
        "calls/s, 64 at a time": ("calls", 1),
        "10 MB there and back, best of 10": ("10 MB", 1),
        "1 GB there and back": ("1 GB", 1),
        "items/s of one stream": ("items", 1),
    }
    return {figure: float(rows[name]) * scale for name, (figure, scale) in names.items()}


def cost(process):
    """Seconds of processor time and bytes of memory that a process has used."""
    with open(f"/proc/{process.pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    with open(f"/proc/{process.pid}/status") as file:
        memory = next(line for line in file if line.startswith("VmRSS:"))
    ticks = os.sysconf("SC_CLK_TCK")
    return (int(fields[11]) + int(fields[12])) / ticks, int(memory.split()[1]) << 10


def idle(nodes, seconds):
    """What so many nodes that nobody calls cost a gateway: a share of a core, and bytes for each."""
    where = address()
    command = [sys.executable, os.path.join(SIDES, "r3mes_side.py")]
    gateway = subprocess.Popen([*command, "gateway", where], stdout=subprocess.DEVNULL)
    try:
        host, port = where.split(":")
        while socket.socket().connect_ex((host, int(port))) != 0:
            time.sleep(0.1)
        _, empty = cost(gateway)
        others = subprocess.Popen(
            [*command, "idle", where, str(nodes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if others.stdout.readline().strip() != "ready":
            raise SystemExit("the idle nodes did not come")
        began, (used, memory) = time.monotonic(), cost(gateway)
        time.sleep(seconds)
        share = (cost(gateway)[0] - used) / (time.monotonic() - began)
        others.stdin.close()
        others.wait()
        return share, (memory - empty) / nodes
    finally:
        gateway.terminate()
        gateway.wait()


def written(figure, value):
    return "-" if value is None else format(value, FIGURES[figure][1])


def table(best):
    print("\n| what | " + " | ".join(best) + " |")
    print("|---|" + "---:|" * len(best))
    for figure, (name, *_) in FIGURES.items():
        cells = [written(figure, figures.get(figure)) for figures in best.values()]
        if set(cells) == {"-"}:
            continue
        print(f"| {name} | " + " | ".join(cells) + " |")
    ours, peers = best["r3mes"], [name for name in best if not name.startswith("r3mes")]
    if not peers:
        return
    print("\nTimes as good as the other (above 1: this project is better):\n")
    print("| what | " + " | ".join(peers) + " |")
    print("|---|" + "---:|" * len(peers))
    for figure, (name, _, less) in FIGURES.items():
        cells = []
        for peer in peers:
            mine, theirs = ours.get(figure), best[peer].get(figure)
            known = mine is not None and theirs is not None
            cells.append(f"{theirs / mine if less else mine / theirs:.2f}" if known else "-")
        if set(cells) == {"-"}:
            continue
        print(f"| {name.rsplit(', ', 1)[0] if less else name} | " + " | ".join(cells) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, without 1 GB and without Rust")
    parser.add_argument("sides", nargs="*", default=list(PROGRAMS), help="which sides, of " + ", ".join(PROGRAMS))
    options = parser.parse_args()
    unknown = set(options.sides) - set(PROGRAMS)
    if unknown:
        parser.error(f"there is no side {', '.join(unknown)}: choose of {', '.join(PROGRAMS)}")
    seconds, rounds, items, nodes = (1, 1, 20_000, 100) if options.quick else (3, 3, 100_000, 1000)
    # Keys and settings of nodes are nobody's.
    settings = tempfile.TemporaryDirectory()
    os.environ["XDG_CONFIG_HOME"] = settings.name
    print(f"{machine()}; Python {sys.version.split()[0]}; best of {rounds} rounds", flush=True)
    peers = [Peer(name) for name in dict.fromkeys(["r3mes", *options.sides])]
    try:
        for peer in peers:
            peer.start()
        for _ in range(rounds):
            for peer in peers:
                peer.take(f"sequential {seconds}", "p50", "p99", scale=1e-3)
            for peer in peers:
                peer.take(f"concurrent {seconds} {CALLERS}", "calls")
            for peer in peers:
                for _ in range(5):
                    peer.take("bytes 10000000", "10 MB")
            for peer in peers:
                peer.take(f"items {items}", "items")
        if not options.quick:
            for peer in peers:
                peer.take("bytes 1000000000", "1 GB", scale=1e-3)
    finally:
        for peer in peers:
            peer.close()
    best = {peer.name: peer.best for peer in peers}
    if not options.quick:
        best = {"r3mes": best.pop("r3mes"), "r3mes in Rust": in_rust(str(seconds)), **best}
    table(best)
    share, memory = idle(nodes, 5 if options.quick else 30)
    print(f"\n{nodes} idle nodes cost a gateway {share * 100:.2f}% of a core and {memory / 1024:.1f} KiB each.")


if __name__ == "__main__":
    main()
