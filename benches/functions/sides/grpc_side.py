"""grpcio: a server that the client reaches itself, with bytes as messages."""

from __future__ import annotations

import asyncio
from typing import Any, AsyncIterator

import grpc
from harness import Caller, run

UNBOUNDED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def node(address: str) -> None:
    async def echo(data: bytes, _: Any) -> bytes:
        return data

    async def items(count: bytes, _: Any) -> AsyncIterator[bytes]:
        for _ in range(int(count)):
            yield b"eight by"

    async def serve() -> None:
        server = grpc.aio.server(options=UNBOUNDED)
        handlers = {
            "echo": grpc.unary_unary_rpc_method_handler(echo),
            "items": grpc.unary_stream_rpc_method_handler(items),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", handlers),))
        server.add_insecure_port(address)
        await server.start()
        await server.wait_for_termination()

    asyncio.run(serve())


class Grpc(Caller):
    async def open(self, address: str) -> None:
        channel = grpc.insecure_channel(address, options=UNBOUNDED)
        grpc.channel_ready_future(channel).result(timeout=60)
        self.blocking = channel.unary_unary("/bench/echo")
        self.channel = grpc.aio.insecure_channel(address, options=UNBOUNDED)
        self.echo = self.channel.unary_unary("/bench/echo")
        self.stream = self.channel.unary_stream("/bench/items")

    async def call(self, data: bytes) -> bytes:
        return await self.echo(data)

    async def items(self, count: int) -> int:
        came = 0
        async for _ in self.stream(str(count).encode()):
            came += 1
        return came


run(Grpc(), {"node": node})
