"""A gateway and nodes in this process, and settings that are nobody's."""

from __future__ import annotations

from typing import Any, Callable, Iterator

import pytest

from r3mes import ComputeNode, Server


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    for name in ("R3MES_GATEWAY", "EASYREMOTE_GATEWAY", "R3MES_TOKEN", "R3MES_FUNCTIONS_CA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(port=0) as server:
        yield server


@pytest.fixture
def node(server: Server) -> Iterator[Callable[..., ComputeNode]]:
    """Makes nodes; each must be started."""
    made: list[ComputeNode] = []

    def make(node_id: str = "node", **options: Any) -> ComputeNode:
        made.append(ComputeNode(server.address, node_id, **options))
        return made[-1]

    yield make
    for one in made:
        one.stop()
