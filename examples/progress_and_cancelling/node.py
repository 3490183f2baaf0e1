"""Long work: it says how far it is, and ends when nobody waits for it any more."""

import os
import signal

from easyremote import ComputeNode
from r3mes import ExecutionContext

node = ComputeNode(node_id="long-work")

@node.register
def train(context: ExecutionContext, steps: int) -> str:
    for step in range(steps):
        context.check()
        context.progress((step + 1) / steps, f"step {step + 1}")
    return f"trained for {steps} steps"

@node.register(isolation="process")
def hang(context: ExecutionContext) -> None:
    """Never returns by itself, and looks at nothing: its process is killed."""
    context.progress(note=str(os.getpid()))
    signal.pause()

node.serve()
