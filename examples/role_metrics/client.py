"""The figures of the three roles: those of gateway and nodes from the gateway, a client's from what it sees.

What nobody measures is `None`, and never 0: whether people are satisfied, and what was earned without a price.
"""

import json
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, fields
from typing import List, Optional

from easyremote import Client, remote
from r3mes import RemoteError


@dataclass
class ComputeNodeMetrics:
    # Resource utilization
    cpu_usage: Optional[float]
    memory_usage: Optional[float]
    gpu_usage: Optional[float]
    
    # Function execution
    functions_executed: int
    avg_execution_time: Optional[float]
    success_rate: Optional[float]
    
    # Network performance  
    uptime: float
    connection_stability: Optional[float]
    data_transfer_rate: Optional[float]
    
    # Business metrics
    revenue_generated: Optional[float]  # If monetized
    user_satisfaction: Optional[float]


@dataclass 
class GatewayMetrics:
    # Network coordination
    connected_nodes: int
    active_functions: int
    requests_per_second: float
    
    # Load balancing efficiency
    node_utilization_balance: Optional[float]
    request_routing_latency: Optional[float]
    
    # System health
    uptime: float
    error_rate: Optional[float]
    avg_response_time: Optional[float]


@dataclass
class ClientMetrics:
    # Usage patterns
    functions_called: int
    avg_call_frequency: float
    preferred_node_types: List[str]
    
    # Performance experience
    avg_response_time: float
    success_rate: float
    cost_efficiency: Optional[float] = None
    
    # Satisfaction
    retry_rate: float = 0.0  # No call is made again by itself.
    feature_adoption: Optional[float] = None


def told(kind, figures):
    """Figures as one of the classes above; each of its fields must be there."""
    return kind(**{field.name: figures[field.name] for field in fields(kind)})


halve = remote("measured", "halve")
began, seconds, well = time.perf_counter(), [], 0
for number in range(10):
    called = time.perf_counter()
    try:
        well += halve(number) == number // 2
    except RemoteError as error:
        assert error.message == f"{number} is odd", error
    seconds.append(time.perf_counter() - called)

with urllib.request.urlopen(f"http://{Client().gateway}/api/metrics", timeout=30) as answer:
    figures = json.load(answer)
gateway = told(GatewayMetrics, figures["gateway"])
(measured,) = [entry for entry in figures["nodes"] if entry["node_id"] == "measured"]
node = told(ComputeNodeMetrics, measured)
(itself,) = [entry for entry in Client().nodes() if entry["id"] == "measured"]
client = ClientMetrics(
    functions_called=len(seconds),
    avg_call_frequency=len(seconds) / (time.perf_counter() - began),
    preferred_node_types=[name for name, _ in Counter(itself["capabilities"]["specialization"]).most_common()],
    avg_response_time=sum(seconds) / len(seconds),
    success_rate=well / len(seconds),
)
assert gateway.connected_nodes >= 1 and gateway.requests_per_second > 0 and gateway.error_rate > 0, gateway
assert node.functions_executed == 10 and node.success_rate == client.success_rate == 0.5, (node, client)
assert node.user_satisfaction is None and node.avg_execution_time <= client.avg_response_time, (node, client)
print(f"{gateway.connected_nodes} nodes, {node.functions_executed} calls, {1000 * client.avg_response_time:.2f} ms each")
