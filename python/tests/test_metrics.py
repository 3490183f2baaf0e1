"""Figures of a gateway, its nodes and this process: typed, as JSON and for Prometheus."""

from __future__ import annotations

import dataclasses
import json
import re
import socket
from typing import Any, Callable

import pytest

from r3mes import AuthenticationError, Client, ComputeNode, GatewayUnreachableError, Server
from r3mes.metrics import ClientMetrics, ComputeNodeMetrics, GatewayMetrics, Metrics, from_gateway


def test_a_gateway_tells_of_itself_its_nodes_and_this_process_of_its_calls(
    server: Server, node: Callable[..., ComputeNode]
) -> None:
    lab = node("lab")

    @lab.register
    def half(x: int) -> int:
        if x % 2:
            raise ValueError("odd")
        return x // 2

    client = Client(server.address)
    with lab:
        before = client.metrics()
        assert before.gateway.connected_nodes == before.gateway.active_functions == 1
        assert (before.gateway.error_rate, before.nodes[0].success_rate) == (None, None)
        for x in (2, 4, 6, 7):
            try:
                assert client.execute("lab.half", x) == x // 2
            except ValueError:
                assert x == 7
        after = client.metrics()
    assert [(one.node_id, one.functions_executed, one.success_rate) for one in after.nodes] == [("lab", 4, 0.75)]
    assert after.gateway.error_rate == 0.25
    assert after.gateway.avg_response_time is not None and after.gateway.avg_response_time > 0
    assert after.client.functions_called - before.client.functions_called == 4
    assert after.client.success_rate is not None and 0 < after.client.success_rate < 1
    assert after.client.avg_response_time is not None and after.client.avg_response_time > 0


def test_a_stream_is_a_call_that_ends_with_its_last_item(server: Server, node: Callable[..., ComputeNode]) -> None:
    lab = node("lab")

    @lab.register
    def count(to: int) -> Any:
        yield from range(to)

    counting = Client(server.address).function("lab.count", stream=True)
    ended = lambda: native_calls()[2]  # noqa: E731
    with lab:
        before = ended()
        stream = counting(2)
        assert next(stream) == 0 and ended() == before
        assert list(stream) == [1] and ended() == before + 1
        with counting(3) as given_up:
            next(given_up)
        assert ended() == before + 1


def native_calls() -> tuple[int, int, int, float, float | None]:
    from r3mes import _native

    return _native.calls_made()


def some(**known: Any) -> Metrics:
    """Figures of which these are known of the node, and nothing else that may be unknown."""
    gateway = {"connected_nodes": 1, "active_functions": 2, "requests_per_second": 0.5, "uptime": 7.25}
    node = {"node_id": 'a"b\\c', "functions_executed": 0, "uptime": 3.0, **known}
    return from_gateway({"gateway": gateway, "nodes": [node, {**node, "node_id": "z", "cpu_usage": 0.0}]})


def test_what_is_not_known_is_null_and_absent_and_never_zero() -> None:
    told = json.loads(some().to_json())
    assert told["gateway"]["error_rate"] is None and told["gateway"]["uptime"] == 7.25
    assert [node["cpu_usage"] for node in told["nodes"]] == [None, 0.0]
    assert told["client"]["cost_efficiency"] is None
    text = some().to_prometheus()
    assert "r3mes_functions_gateway_uptime_seconds 7.25\n" in text
    assert 'r3mes_functions_node_uptime_seconds{node_id="a\\"b\\\\c"} 3.0\n' in text
    assert [line for line in text.splitlines() if line.startswith("r3mes_functions_node_cpu_usage")] == [
        'r3mes_functions_node_cpu_usage{node_id="z"} 0.0'
    ]
    assert "error_rate" not in text and "cost_efficiency" not in text
    families = re.findall(r"^# TYPE (\S+) gauge$", text, re.MULTILINE)
    assert len(families) == len(set(families)), "the lines of a family stand together"


@pytest.mark.parametrize("kind", [GatewayMetrics, ComputeNodeMetrics, ClientMetrics])
def test_each_field_says_who_measures_it(kind: type) -> None:
    for of in dataclasses.fields(kind):
        source = of.metadata["source"]
        assert source.startswith(("Gateway", "Node", "This process", "Nobody")), of.name
        if source.startswith("Nobody"):  # It says why.
            assert "None" in str(of.type) and source.startswith("Nobody measures it: "), of.name


def test_who_may_not_ask_and_where_nobody_answers_is_said() -> None:
    with Server(port=0, tokens={"secret": "alice"}, token_required=True) as server:
        assert Client(server.address, auth_token="secret").metrics().nodes == []
        with pytest.raises(AuthenticationError):
            Client(server.address, auth_token="wrong").metrics()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(GatewayUnreachableError, match=f"no gateway answers at http://{address}"):
            Client(address).metrics()
        with Server(port=0) as server:
            assert Client(f"{address},{server.address}").metrics().gateway.connected_nodes == 0
