"""easyremote: client, gateway and node in Python over gRPC."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Iterator

from easyremote import Client, ComputeNode, Server
from easyremote.core.nodes.client import ExecutionContext
from harness import Caller, run


def gateway(address: str) -> None:
    Server(port=int(address.rsplit(":", 1)[1]), log_level="error").start()


def node(address: str) -> None:
    made = ComputeNode(address, node_id="bench", log_level="error")

    @made.register(enable_caching=False)
    def echo(data: bytes) -> bytes:
        return data

    @made.register
    def items(count: int) -> Iterator[bytes]:
        for _ in range(count):
            yield b"eight by"

    made.serve()


class EasyRemote(Caller):
    async def open(self, address: str) -> None:
        # It would answer a call that it knows from memory.
        each = ExecutionContext(function_name="echo", enable_caching=False)
        self.blocking = lambda data: self.client.execute_with_context(each, data).result
        self.threads = ThreadPoolExecutor(64)
        until = time.monotonic() + 60
        while True:
            # One that has failed a few times does not try any more.
            self.client: Any = Client(address)
            try:
                self.blocking(b"")
                return
            except Exception:  # the node is not there yet
                if time.monotonic() > until:
                    raise
                time.sleep(1)

    async def call(self, data: bytes) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self.threads, self.blocking, data)

    async def items(self, count: int) -> int:
        return await asyncio.to_thread(lambda: sum(1 for _ in self.client.stream("items", count)))


run(EasyRemote(), {"gateway": gateway, "node": node})
