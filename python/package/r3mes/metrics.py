"""How the three roles do: a gateway, its nodes, and the calls of this process.

    from r3mes import Client

    metrics = Client().metrics()
    print(metrics.gateway.requests_per_second, [node.cpu_usage for node in metrics.nodes])
    print(metrics.to_json(), metrics.to_prometheus())

Each field says who measures it. What nobody knows is `None`, never 0: null in JSON, and absent for Prometheus.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, TypeVar

from . import _native

__all__ = ["ClientMetrics", "ComputeNodeMetrics", "GatewayMetrics", "Metrics"]

_T = TypeVar("_T")


def _by(source: str, unit: str = "") -> dict[str, str]:
    """What is known of a field: what it is and who measures it, and its unit as Prometheus writes it."""
    return {"source": source, "unit": unit}


@dataclass(frozen=True, kw_only=True)
class GatewayMetrics:
    """A gateway as it sees itself, when it was asked."""

    connected_nodes: int = field(metadata=_by("Gateway: nodes that are connected, those of other gateways included"))
    active_functions: int = field(metadata=_by("Gateway: functions on offer, each as often as it is offered"))
    requests_per_second: float = field(metadata=_by("Gateway: calls that ended in the last minute, by second"))
    node_utilization_balance: float | None = field(
        metadata=_by("Gateway: Jain's index of the nodes' busy shares, 1 when all are alike; unknown while no call runs")
    )
    request_routing_latency: float | None = field(
        metadata=_by("Gateway: from a call's coming until a node had it, mean of the last minute", "seconds")
    )
    uptime: float = field(metadata=_by("Gateway: since it began to serve", "seconds"))
    error_rate: float | None = field(metadata=_by("Gateway: share of the last minute's calls that failed"))
    avg_response_time: float | None = field(
        metadata=_by("Gateway: from a call's coming until it ended, mean of the last minute", "seconds")
    )


@dataclass(frozen=True, kw_only=True)
class ComputeNodeMetrics:
    """A node as its gateway sees it, when that was asked."""

    node_id: str = field(metadata=_by("Gateway: the node's name"))
    cpu_usage: float | None = field(metadata=_by("Node, every 2 s: share of its processors in use, 0 to 1"))
    memory_usage: float | None = field(metadata=_by("Node, every 2 s: share of its memory in use, 0 to 1"))
    gpu_usage: float | None = field(metadata=_by("Node, every 2 s: share of its NVIDIA GPUs in use, 0 to 1"))
    functions_executed: int = field(metadata=_by("Gateway: calls that ended since the node came"))
    avg_execution_time: float | None = field(
        metadata=_by("Gateway: for which calls ran on the node, mean since it came", "seconds")
    )
    success_rate: float | None = field(metadata=_by("Gateway: share of the ended calls that ended well"))
    uptime: float = field(metadata=_by("Gateway: since the node came", "seconds"))
    connection_stability: float | None = field(
        metadata=_by("Nobody measures it: a node that comes again is a new one to its gateway")
    )
    data_transfer_rate: float | None = field(
        metadata=_by("Gateway: bytes of arguments and results of the ended calls, by second since the node came")
    )
    revenue_generated: float | None = field(
        metadata=_by("Gateway: what the node's calls have cost its callers, in REMES; unknown while nothing has a price")
    )
    user_satisfaction: float | None = field(metadata=_by("Nobody measures it: no caller is asked"))


@dataclass(frozen=True, kw_only=True)
class ClientMetrics:
    """The calls of this process, whatever gateway they went to."""

    functions_called: int = field(metadata=_by("This process: calls that it began"))
    avg_call_frequency: float | None = field(
        metadata=_by("This process: calls that it began, by second since the first one; unknown before that")
    )
    preferred_node_types: list[str] | None = field(metadata=_by("Nobody measures it: gateways choose nodes"))
    avg_response_time: float | None = field(
        metadata=_by("This process: from a call's beginning until its last item, mean of those that ended", "seconds")
    )
    success_rate: float | None = field(
        metadata=_by("This process: share of the ended calls that ended well; those given up are not ended")
    )
    cost_efficiency: float | None = field(
        metadata=_by("Nobody measures it: callers are not told what a call cost, and what it was worth only they know")
    )
    retry_rate: float | None = field(metadata=_by("Nobody measures it: a program that calls again makes another call"))
    feature_adoption: float | None = field(
        metadata=_by("Nobody measures it: that is of many programs, and a process sees its own calls alone")
    )


@dataclass(frozen=True)
class Metrics:
    """A gateway, its nodes, and the calls of this process."""

    gateway: GatewayMetrics
    nodes: list[ComputeNodeMetrics]
    client: ClientMetrics

    def to_json(self) -> str:
        """All of them as a JSON object with the keys `gateway`, `nodes` and `client`."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    def to_prometheus(self) -> str:
        """All of them in Prometheus's text format, as gauges; those of nodes have the label `node_id`."""
        lines: list[str] = []
        for role, several in (("gateway", [self.gateway]), ("node", self.nodes), ("client", [self.client])):
            lines += _families(f"r3mes_functions_{role}", several)
        return "".join(f"{line}\n" for line in lines)


def _families(prefix: str, several: Iterable[Any]) -> Iterable[str]:
    """The figures of some of one class that are known, those of one field together."""
    several = list(several)
    for of in dataclasses.fields(several[0]) if several else ():
        known = [(one, getattr(one, of.name)) for one in several]
        known = [(one, value) for one, value in known if isinstance(value, (int, float))]
        if not known:
            continue
        name = "_".join(part for part in (prefix, of.name, of.metadata["unit"]) if part)
        yield f"# HELP {name} {of.metadata['source']}"
        yield f"# TYPE {name} gauge"
        for one, value in known:
            label = "" if not hasattr(one, "node_id") else f'{{node_id="{_escaped(one.node_id)}"}}'
            yield f"{name}{label} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _told(kind: type[_T], told: Mapping[str, Any]) -> _T:
    """A class of figures from what a gateway tells; it may be older or newer than this package."""
    names = (of.name for of in dataclasses.fields(kind))  # type: ignore[arg-type]
    return kind(**{name: told.get(name) for name in names})


def from_gateway(told: Mapping[str, Any]) -> Metrics:
    """The figures of what a gateway answers to `GET /api/metrics`, and of this process's calls."""
    nodes = [_told(ComputeNodeMetrics, node) for node in told["nodes"]]
    return Metrics(_told(GatewayMetrics, told["gateway"]), nodes, of_this_process())


def of_this_process() -> ClientMetrics:
    """The calls of this process until now."""
    begun, well, ended, seconds, since_first = _native.calls_made()
    return ClientMetrics(
        functions_called=begun,
        avg_call_frequency=begun / max(since_first, 1.0) if since_first else None,
        preferred_node_types=None,
        avg_response_time=seconds / ended if ended else None,
        success_rate=well / ended if ended else None,
        cost_efficiency=None,
        retry_rate=None,
        feature_adoption=None,
    )
