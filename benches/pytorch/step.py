"""One LoRA training step in PyTorch, in f32 and under bf16 autocast, and the same step here.

usage: step.py THREADS ROUNDS

Both do the same work: frozen weights in seven linears a block, LoRA of rank 8 on each, RMSNorm,
rotary positions, causal attention, SwiGLU, a tied head, cross-entropy, gradients for the adapter
alone, AdamW. PyTorch has the frozen weights dense, in f32 or bf16, and multiplies floating
activations; here they are ternary and activations int8.
"""

import os
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import turns  # noqa: E402

LAYERS, WIDTH, HEADS, FEED_FORWARD, VOCABULARY = 6, 384, 6, 1024, 4096
BATCH, SEQUENCE, RANK, ALPHA = 4, 256, 8, 16.0


class Linear(nn.Module):
    """A frozen ternary matrix, kept dense, with LoRA."""

    def __init__(self, inputs, outputs, kind):
        super().__init__()
        ternary = torch.randint(-1, 2, (outputs, inputs)).to(torch.float32) * (1.5 / inputs) ** 0.5
        self.register_buffer("weight", ternary.to(kind))
        self.a = nn.Parameter(torch.randn(RANK, inputs) * 0.02)
        self.b = nn.Parameter(torch.zeros(outputs, RANK))

    def forward(self, x):
        return F.linear(x, self.weight) + F.linear(F.linear(x, self.a), self.b) * (ALPHA / RANK)


class Block(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.q, self.k, self.v, self.o = (Linear(WIDTH, WIDTH, kind) for _ in range(4))
        self.gate, self.up = (Linear(WIDTH, FEED_FORWARD, kind) for _ in range(2))
        self.down = Linear(FEED_FORWARD, WIDTH, kind)
        self.register_buffer("gains", torch.ones(2, WIDTH))

    def forward(self, x, cosine, sine):
        normed = F.rms_norm(x, (WIDTH,), self.gains[0], 1e-5)

        def heads(y):
            return y.view(BATCH, SEQUENCE, HEADS, WIDTH // HEADS).transpose(1, 2)

        def turned(y):
            first, second = y.chunk(2, dim=-1)
            return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)

        q, k, v = turned(heads(self.q(normed))), turned(heads(self.k(normed))), heads(self.v(normed))
        attended = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True)
        x = x + self.o(attended.transpose(1, 2).reshape(BATCH, SEQUENCE, WIDTH))
        normed = F.rms_norm(x, (WIDTH,), self.gains[1], 1e-5)
        return x + self.down(F.silu(self.gate(normed)) * self.up(normed))


class Step:
    """A model, its optimizer and one batch."""

    def __init__(self, kind):
        torch.manual_seed(1)
        self.kind = kind
        self.blocks = nn.ModuleList(Block(kind) for _ in range(LAYERS))
        self.table = (torch.randn(VOCABULARY, WIDTH) * 0.05).to(kind)
        self.optimizer = torch.optim.AdamW(self.blocks.parameters(), lr=6e-3, weight_decay=0.0, fused=True)
        self.tokens = torch.randint(0, VOCABULARY, (BATCH, SEQUENCE + 1))
        half = WIDTH // HEADS // 2
        angles = torch.outer(torch.arange(SEQUENCE), 10_000.0 ** (-torch.arange(half) / half))
        self.cosine, self.sine = angles.cos(), angles.sin()

    def loss(self):
        x = F.embedding(self.tokens[:, :-1], self.table).float()
        for block in self.blocks:
            x = block(x, self.cosine, self.sine)
        logits = F.linear(F.rms_norm(x, (WIDTH,), eps=1e-5), self.table)
        return F.cross_entropy(logits.view(-1, VOCABULARY), self.tokens[:, 1:].reshape(-1))

    def run(self):
        """One step; milliseconds of the clock and of the processor."""
        wall, cpu = time.perf_counter(), time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.kind is torch.bfloat16):
            loss = self.loss()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3, loss.item()


def main():
    threads, rounds = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(threads)
    f32, bf16 = Step(torch.float32), Step(torch.bfloat16)
    here = turns.cargo_bench("r3mes-training", "beside_pytorch", str(threads))
    candidates = {"f32": f32.run, "bf16": bf16.run, "here": lambda: here.ask("step")}
    for turn in candidates.values():
        turn()
    best = turns.least(candidates, rounds, threads)
    here.close()
    if threads == 1:
        print(f"{turns.machine()}; PyTorch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}\n")
        print("| threads | here | PyTorch f32 | ratio | PyTorch bf16 autocast | ratio |")
        print("|---:|---:|---:|---:|---:|---:|")
    ms = best["here"]
    print(
        f"| {threads} | {ms:.1f} ms | {best['f32']:.1f} ms | {best['f32'] / ms:.2f} "
        f"| {best['bf16']:.1f} ms | {best['bf16'] / ms:.2f} |"
    )


main()
