"""nats-py: request and reply through a nats-server; a stream is many messages to one inbox."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import nats
from harness import Caller, run

PROGRAM = os.path.join(os.path.dirname(__file__), "../../../.programs/bin/nats-server")


def gateway(address: str) -> None:
    host, port = address.split(":")
    folder = os.environ["XDG_CONFIG_HOME"]
    with open(os.path.join(folder, "nats.conf"), "w") as file:
        # The most that a server lets one message have, so that 10 MB go as one.
        file.write(f"listen: {host}:{port}\nmax_payload: 64MB\nmax_pending: 256MB\n")
    os.execv(PROGRAM, [PROGRAM, "--config", file.name, "--log", os.devnull])


def node(address: str) -> None:
    async def serve() -> None:
        connection = await nats.connect(f"nats://{address}", pending_size=256 << 20)

        async def echo(message: Any) -> None:
            await message.respond(message.data)

        async def items(message: Any) -> None:
            for _ in range(int(message.data)):
                await connection.publish(message.reply, b"eight by")

        await connection.subscribe("echo", cb=echo)
        await connection.subscribe("items", cb=items)
        await asyncio.Event().wait()

    asyncio.run(serve())


class Nats(Caller):
    async def open(self, address: str) -> None:
        self.connection = await nats.connect(f"nats://{address}", pending_size=256 << 20)
        while True:
            try:
                await self.call(b"")
                return
            except nats.errors.Error:
                await asyncio.sleep(0.1)

    async def call(self, data: bytes) -> bytes:
        return (await self.connection.request("echo", data, timeout=60)).data

    async def items(self, count: int) -> int:
        inbox = self.connection.new_inbox()
        came, last = 0, asyncio.Event()

        async def take(_: Any) -> None:
            nonlocal came
            came += 1
            if came == count:
                last.set()

        subscription = await self.connection.subscribe(
            inbox, cb=take, pending_msgs_limit=2 * count, pending_bytes_limit=1 << 30
        )
        await self.connection.publish("items", str(count).encode(), reply=inbox)
        await asyncio.wait_for(last.wait(), 60)
        await subscription.unsubscribe()
        return came


run(Nats(), {"gateway": gateway, "node": node})
