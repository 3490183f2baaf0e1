"""Remote functions: any machine's functions, called as if they were here.

    from r3mes import ComputeNode, Server, remote

A `ComputeNode` offers functions, a `Server` is the gateway between, and `remote` calls.
"""

from . import errors
from ._context import ExecutionContext
from ._node import ComputeNode
from ._remote import Client, Progress, RemoteFunction, Stream, remote
from ._server import Server
from ._values import Record
from .errors import (
    AccessDeniedError,
    AuthenticationError,
    CallCancelledError,
    CallError,
    CallTimeoutError,
    FunctionNotFoundError,
    GatewayUnreachableError,
    NodeLostError,
    NoHealthyNodesError,
    PartialFailureError,
    PaymentRequiredError,
    QuotaExceededError,
    RemoteError,
)

__version__ = "0.1.0"

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
    "errors",
    "remote",
]
