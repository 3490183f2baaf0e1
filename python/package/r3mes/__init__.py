"""Remote functions: any machine's functions, called as if they were here.

    from r3mes import ComputeNode, Server, remote

A `ComputeNode` offers functions, a `Server` is the gateway between, and `remote` calls.
"""

# Type checkers take this for true. The real one stands in `typing`, which takes longer than this package.
TYPE_CHECKING = False

if TYPE_CHECKING:
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

if not TYPE_CHECKING:
    #: In which module a name is, where that is not `errors`.
    _MODULES = {
        "Client": "_remote",
        "ComputeNode": "_node",
        "ExecutionContext": "_context",
        "Progress": "_remote",
        "Record": "_values",
        "RemoteFunction": "_remote",
        "Server": "_server",
        "Stream": "_remote",
        "remote": "_remote",
    }

    def __getattr__(name: str) -> object:
        """Imports what has a name when it is first asked for: a program that only calls needs no node."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        module = import_module(f".{_MODULES.get(name, 'errors')}", __name__)
        found = globals()[name] = module if name == "errors" else getattr(module, name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
