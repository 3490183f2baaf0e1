#!/usr/bin/env python3
"""The demonstration over several beacons, without and with a liar, as a table.

usage: benches/demo.py [BEACONS] [-- ARGUMENTS OF r3mes]

Each run is `r3mes demo --check --beacon N`; a run whose checks do not all hold is named below the
table, with what it found, and the status is 1.
"""

import json
import os
import subprocess
import sys
import time

PROGRAM = os.path.join(os.path.dirname(__file__), "..", "target", "release", "r3mes")


def run(beacon: int, liar: bool, extra: list[str]) -> tuple[str, list[str]]:
    """One run: its cell of the table, and what did not hold."""
    command = [PROGRAM, *extra, "--json", "demo", "--check", "--port", "0", "--beacon", str(beacon)]
    if liar:
        command.append("--liar")
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.monotonic() - began
    try:
        figures = json.loads(done.stdout)
    except json.JSONDecodeError:
        return "failed", [f"beacon {beacon}: {' '.join(command)}: {done.stderr.strip()[-2000:]}"]
    fall = 100 * (1 - figures["loss"] / figures["base_loss"])
    cell = f"{figures['loss']:.3f} | {fall:.1f}% | {seconds:.0f}"
    broken = [
        f"beacon {beacon}: {check['name']}: {check['found']}"
        for check in figures["checks"]
        if not check["holds"]
    ]
    return cell, broken


def main() -> int:
    arguments, _, extra = " ".join(sys.argv[1:]).partition("--")
    beacons = int(arguments or 10)
    print("| beacon | loss | lower | s | with a liar: loss | lower | s |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    broken: list[str] = []
    for beacon in range(1, beacons + 1):
        cells = []
        for liar in (False, True):
            cell, wrong = run(beacon, liar, extra.split())
            cells.append(cell)
            broken += wrong
        print(f"| {beacon} | {' | '.join(cells)} |", flush=True)
    print("\n".join(broken))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
