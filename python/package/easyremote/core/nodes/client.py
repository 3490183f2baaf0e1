"""Where EasyRemote has its client."""

from ..._calls import (
    Client,
    call,
    call_node,
    call_stream,
    call_stream_node,
    get_default_client,
    list_nodes,
    set_default_gateway,
)

DistributedComputingClient = Client

__all__ = [
    "Client",
    "DistributedComputingClient",
    "call",
    "call_node",
    "call_stream",
    "call_stream_node",
    "get_default_client",
    "list_nodes",
    "set_default_gateway",
]
