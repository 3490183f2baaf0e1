"""This project: a client, a gateway and a node in Python."""

from __future__ import annotations

import sys
import time
from typing import Any, AsyncIterator

from harness import Caller, run
from r3mes import Client, ComputeNode, Server


def gateway(address: str) -> None:
    Server(port=int(address.rsplit(":", 1)[1])).run()


def node(address: str) -> None:
    made = ComputeNode(address, "bench")

    @made.register(max_concurrent=64)
    async def echo(data: bytes) -> bytes:
        return data

    @made.register
    async def items(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"eight by"

    made.serve()


def idle(address: str, count: str) -> None:
    """Nodes that nobody calls. Says so when all are there, and ends with its input."""
    nodes = []
    for number in range(int(count)):
        made = ComputeNode(address, f"idle-{number}")
        made.register(lambda: None, name="nothing")
        nodes.append(made.start())
    client = Client(address)
    while len(client.nodes()) < int(count):
        time.sleep(0.1)
    print("ready", flush=True)
    sys.stdin.read()


class R3mes(Caller):
    async def open(self, address: str) -> None:
        client = Client(address)
        while not any(function["info"]["name"] == "items" for function in client.functions()):
            time.sleep(0.1)
        self.echo: Any = client.function("echo")
        self.count: Any = client.function("items", stream=True)
        self.blocking = self.echo

    async def call(self, data: bytes) -> bytes:
        return await self.echo(data)

    async def items(self, count: int) -> int:
        came = 0
        async for _ in self.count(count):
            came += 1
        return came


run(R3mes(), {"gateway": gateway, "node": node, "idle": idle})
