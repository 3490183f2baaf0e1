"""Ray: an actor on one machine, which hands large values over in shared memory."""

from __future__ import annotations

import logging
import os
from typing import Any, AsyncIterator

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from harness import Caller, run


@ray.remote(max_concurrency=64)
class Echo:
    async def echo(self, data: bytes) -> bytes:
        return data

    async def items(self, count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"eight by"


class Ray(Caller):
    async def open(self, address: str) -> None:
        ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
        self.actor: Any = Echo.remote()
        self.blocking = lambda data: ray.get(self.actor.echo.remote(data))
        self.blocking(b"")

    async def call(self, data: bytes) -> bytes:
        return await self.actor.echo.remote(data)

    async def items(self, count: int) -> int:
        came = 0
        async for item in self.actor.items.options(num_returns="streaming").remote(count):
            await item
            came += 1
        return came


run(Ray(), {})
