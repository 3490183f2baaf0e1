"""The package `r3mes` under the name, and with the words, of programs that were written for EasyRemote.

What `r3mes` has is here too. docs/python.md says what of EasyRemote 2.0 there is, and what there is not.
"""

from typing import Any

from r3mes import (
    AccessDeniedError,
    AuthenticationError,
    CallCancelledError,
    CallError,
    CallTimeoutError,
    ExecutionContext,
    FunctionNotFoundError,
    GatewayUnreachableError,
    NoHealthyNodesError,
    NodeLostError,
    PartialFailureError,
    PaymentRequiredError,
    Progress,
    QuotaExceededError,
    Record,
    RemoteError,
    RemoteFunction,
    Stream,
    __version__,
    errors,
)

from ._calls import Client, remote
from ._roles import ComputeNode, Server

__all__ = [
    "AccessDeniedError",
    "AuthenticationError",
    "CallCancelledError",
    "CallError",
    "CallTimeoutError",
    "Client",
    "ComputeNode",
    "ExecutionContext",
    "FunctionNotFoundError",
    "GatewayUnreachableError",
    "NoHealthyNodesError",
    "NodeLostError",
    "PartialFailureError",
    "PaymentRequiredError",
    "Progress",
    "QuotaExceededError",
    "Record",
    "RemoteError",
    "RemoteFunction",
    "Server",
    "Stream",
    "__version__",
    "errors",
    "remote",
]

_ELSEWHERE = {
    "MCPGateway": "a gateway offers functions to models itself, at POST /mcp",
    "MCPService": "a gateway offers functions to models itself, at POST /mcp",
    "get_performance_monitor": "use r3mes.monitor.get_global_monitor",
    "LoadBalancer": "gateways choose nodes: remote(strategy=...)",
    "RemoteSkill": "offer functions with ComputeNode",
    "RemoteAgentService": "offer functions with ComputeNode",
    "UserDeviceCapabilityHost": "offer functions with ComputeNode",
    "pipeline_function": "call functions with remote",
    "A2AGateway": "gateways speak MCP, HTTP and frames",
}


def __getattr__(name: str) -> Any:
    if name in _ELSEWHERE:
        raise ImportError(f"this easyremote is r3mes, which has no {name}: {_ELSEWHERE[name]}")
    raise AttributeError(f"module 'easyremote' has no attribute {name!r}")
