"""EasyRemote's names of exceptions, for `except`."""

from r3mes.errors import CallError as EasyRemoteError
from r3mes.errors import CallTimeoutError as TimeoutError  # noqa: A004 - EasyRemote's name
from r3mes.errors import FunctionNotFoundError
from r3mes.errors import FunctionNotFoundError as NodeNotFoundError
from r3mes.errors import GatewayUnreachableError as ConnectionError  # noqa: A004
from r3mes.errors import NoHealthyNodesError as NoAvailableNodesError
from r3mes.errors import RemoteError as RemoteExecutionError

__all__ = [
    "ConnectionError",
    "EasyRemoteError",
    "FunctionNotFoundError",
    "NoAvailableNodesError",
    "NodeNotFoundError",
    "RemoteExecutionError",
    "TimeoutError",
]
