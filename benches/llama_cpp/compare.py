"""Products, decoding and prefill here and in llama.cpp.

usage: compare.py products | model SHAPE DIRECTORY, with a count of rounds after it
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import turns  # noqa: E402

SHAPES = [(288, 288), (768, 288), (288, 768), (768, 768), (2560, 2560), (6912, 2560)]
ROWS = [1, 128]
# TQ2_0 has 256 columns to a block.
BLOCK = 256
PROMPT, TOKENS = 512, 16


def sides(threads):
    here = turns.cargo_bench("r3mes-model", "beside_llama_cpp", str(threads))
    return here, turns.Side([os.environ["LLAMA_TURNS"], str(threads)])


def products(rounds):
    here, there = sides(1)
    print(f"{turns.machine()}; one thread\n")
    print("| product | shape | N | here, GMAC/s | TQ2_0, GMAC/s | ratio |")
    print("|---|---|---:|---:|---:|---:|")
    for outputs, inputs in SHAPES:
        for rows in ROWS:
            kind = "GEMV" if rows == 1 else "GEMM"
            if inputs % BLOCK:
                print(f"| {kind} | {outputs}x{inputs} | {rows} | - | has none: its blocks are {BLOCK} columns | - |")
                continue
            command = f"product {outputs} {inputs} {rows}"
            pair = {"here": lambda: here.ask(command), "there": lambda: there.ask(command)}
            best = turns.least(pair, rounds, 1)
            speed = {side: outputs * inputs * rows / ms / 1e6 for side, ms in best.items()}
            ratio = speed["here"] / speed["there"]
            print(f"| {kind} | {outputs}x{inputs} | {rows} | {speed['here']:.0f} | {speed['there']:.0f} | {ratio:.2f} |")
    here.close()
    there.close()


def model(name, folder, rounds):
    for threads in (1, 2):
        here, there = sides(threads)
        here.ask(f"open {folder}/model.r3mes")
        there.ask(f"open {folder}/model.gguf")
        for what, command, tokens in [
            ("decode", f"decode 64 {TOKENS}", 1),
            ("prefill", f"prefill {PROMPT}", PROMPT),
        ]:
            pair = {"here": lambda: here.ask(command), "there": lambda: there.ask(command)}
            best = turns.least(pair, rounds, threads)
            speed = {side: 1e3 * tokens / ms for side, ms in best.items()}
            ratio = speed["here"] / speed["there"]
            print(f"| {name} | {what} | {threads} | {speed['here']:.1f} | {speed['there']:.1f} | {ratio:.2f} |")
        here.close()
        there.close()


if sys.argv[1] == "products":
    products(int(sys.argv[2]))
else:
    model(sys.argv[2], sys.argv[3], int(sys.argv[4]))
