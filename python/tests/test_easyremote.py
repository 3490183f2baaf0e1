"""Programs that were written for EasyRemote: their words, and where they import from."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from typing import Any, Iterator

import pytest

import easyremote
import r3mes
from easyremote.core.nodes.client import Client, call, call_node, call_stream, list_nodes, set_default_gateway
from r3mes import Server

GATEWAY = """
import sys
from easyremote import Server

class GatewayApplication:
    def __init__(self, port: int) -> None:
        self._server = Server(port=port, heartbeat_timeout_seconds=30.0, log_level="info")

    def run(self) -> None:
        self._server.start()

if __name__ == "__main__":
    GatewayApplication(port=0).run()
"""

NODE = """
import sys
from easyremote import ComputeNode

class MathComputeNode:
    def __init__(self, gateway_address: str, node_id: str) -> None:
        self._node = ComputeNode(gateway_address=gateway_address, node_id=node_id, node_capabilities=["math", "cpu"])

        @self._node.register(name="add_numbers", description="Add two integers.", load_balancing=True, tags={"sums"})
        def add(a: int, b: int) -> int:
            return a + b

        @self._node.register(timeout_seconds=60, priority=8, enable_caching=True, version="2.1.0")
        def stream_video_frames(source: str):
            for number in range(3):
                yield f"{source} {number}"

    def serve(self) -> None:
        self._node.serve()

if __name__ == "__main__":
    MathComputeNode(gateway_address=sys.argv[1], node_id="math-node").serve()
"""


def program(source: str, *arguments: str) -> tuple[subprocess.Popen[str], str]:
    """Starts a program; its first line says that it is ready."""
    command = [sys.executable, "-u", "-c", source, *arguments]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    return running, running.stdout.readline()


@pytest.fixture
def gateway() -> Iterator[str]:
    """A gateway and a node, both programs of their own; the gateway's address."""
    serving, said = program(GATEWAY)
    address = said.split()[-1]
    node, said = program(NODE, address)
    assert "math-node serves add_numbers" in said
    yield address
    for running in (node, serving):
        running.kill()
        running.communicate()


def test_programs_of_the_gallery_run(gateway: str, monkeypatch: pytest.MonkeyPatch) -> None:
    @easyremote.remote(function_name="add_numbers", node_id="math-node", gateway_address=gateway)
    def add_numbers(a: int, b: int) -> int:
        return -1

    @easyremote.remote(function_name="add_numbers", load_balancing="round_robin", gateway_address=gateway)
    def anywhere(a: int, b: int) -> int:
        return -1

    @easyremote.remote(function_name="add_numbers", async_func=True, gateway_address=gateway)
    async def awaited(a: int, b: int) -> int:
        return -1

    assert add_numbers(12, 30) == anywhere(40, 2) == asyncio.run(awaited(21, 21)) == 42

    monkeypatch.setenv("R3MES_GATEWAY", "")
    client = set_default_gateway(gateway, enable_caching=True)

    @easyremote.remote(function_name="stream_video_frames", load_balancing=True, stream=True, timeout=60)
    def frames(source: str) -> Any:
        return source

    assert list(frames("camera")) == list(call_stream("stream_video_frames", "camera"))
    assert call("add_numbers", 1, b=2) == call_node("math-node", "add_numbers", 1, 2) == 3
    with client.session() as session:
        assert session.execute("add_numbers", 2, 2) == 4
    assert list(client.stream_on_node("math-node", "stream_video_frames", "x"))[-1] == "x 2"


def test_nodes_are_found_by_what_they_can(gateway: str) -> None:
    client = Client(gateway, connection_timeout_ms=1000.0).connect()
    (node,) = client.list_nodes()
    assert node["node_id"] == "math-node" and node["functions"] == ["add_numbers", "stream_video_frames"]
    assert node["capabilities"] == ["cpu", "math", "specialization"] and node["current_load"] == 0
    assert client.resolve_node_id(required_capabilities=["math"], required_functions=["add_numbers"]) == "math-node"
    with pytest.raises(easyremote.NoHealthyNodesError, match="0 nodes"):
        client.resolve_node_id(required_capabilities=["gpu"])
    info = {function["info"]["name"]: function["info"] for function in client.functions()}
    assert info["add_numbers"]["description"] == "Add two integers." and info["add_numbers"]["labels"] == {"sums": "sums"}
    assert info["stream_video_frames"]["timeout_ms"] == 60_000


def test_what_there_is_not_is_said() -> None:
    with pytest.raises(ImportError, match="no RemoteSkill: offer functions with ComputeNode"):
        from easyremote import RemoteSkill  # type: ignore[attr-defined]  # noqa: F401
    with pytest.raises(TypeError, match="are one"):
        easyremote.ComputeNode("a", vps_address="b")
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        easyremote.Nothing  # type: ignore[attr-defined]  # noqa: B018


def test_roles_run_in_the_background_too() -> None:
    server = easyremote.Server(0)
    serving = server.start_background()
    node = easyremote.ComputeNode(server.address, "here", {"gpu": {"memory": "24GB"}})
    node.register(abs)
    waiting = node.serve(blocking=False)
    assert isinstance(waiting, threading.Thread)
    assert easyremote.remote("here", "abs", gateway=server.address)(-3) == 3
    node.stop()
    server.stop()
    for thread in (serving, waiting):
        thread.join(60)
        assert not thread.is_alive()


def test_both_names_are_of_one_package(server: Server) -> None:
    assert issubclass(easyremote.ComputeNode, r3mes.ComputeNode) and easyremote.RemoteError is r3mes.RemoteError
    assert set(r3mes.__all__) <= set(easyremote.__all__)
