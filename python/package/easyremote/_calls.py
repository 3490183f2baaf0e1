"""Calls with EasyRemote's words."""

from __future__ import annotations

import os
from typing import Any, Callable, Iterable, Iterator, Mapping

import r3mes
from r3mes.errors import NoHealthyNodesError

#: EasyRemote's names of strategies; others of its names mean the score.
_STRATEGIES = {"round_robin": "round_robin", "least_loaded": "least_loaded", "random": "random"}


def remote(
    *names: Any,
    function_name: str | None = None,
    gateway_address: str | None = None,
    async_func: bool = False,
    load_balancing: bool | str | Mapping[str, Any] = False,
    **options: Any,
) -> Any:
    """As `r3mes.remote`.

    :param function_name: another word for `function`. :param gateway_address: another word for `gateway`.
    :param async_func: whether the stub is to be awaited always.
    :param load_balancing: the name of a strategy, or a mapping with one; a gateway chooses among nodes in any case.
    """
    if function_name is not None:
        options["function"] = function_name
    if gateway_address is not None:
        options["gateway"] = gateway_address
    if isinstance(load_balancing, Mapping):
        load_balancing = str(load_balancing.get("strategy", ""))
    if isinstance(load_balancing, str) and "strategy" not in options:
        options["strategy"] = _STRATEGIES.get(load_balancing, "score")
    made = r3mes.remote(*names, **options)
    if not async_func:
        return made
    return _awaited(made) if names and callable(names[0]) else lambda stub: _awaited(made(stub))


def _awaited(function: Callable[..., Any]) -> Callable[..., Any]:
    async def calling(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return calling


class Client(r3mes.Client):
    """As `r3mes.Client`. EasyRemote's timeouts of connections, pools, retries and caches change nothing."""

    def __init__(
        self,
        gateway_address: str | None = None,
        client_id: str | None = None,
        *,
        auth_token: str | None = None,
        auth: str | None = None,
        **_: Any,
    ) -> None:
        super().__init__(gateway_address, auth_token=auth_token, auth=auth)
        self.client_id = client_id

    @property
    def gateway_address(self) -> str:
        """HOST:PORT of the gateway."""
        return self.gateway

    def connect(self) -> Client:
        """Connects now, and raises if there is no gateway; calls connect by themselves."""
        self._connection()
        return self

    def disconnect(self) -> None:
        """Does nothing: connections are shared, and end with the process."""

    def session(self) -> Client:
        """This client, for `with`."""
        return self

    def stream(self, function_name: str, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Calls a function that yields items."""
        stream: r3mes.Stream = self.function(function_name, stream=True)(*args, **kwargs)
        return stream

    def stream_on_node(self, node_id: str, function_name: str, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Calls a function of one node that yields items."""
        stream: r3mes.Stream = self.function(function_name, node_id=node_id, stream=True)(*args, **kwargs)
        return stream

    def list_nodes(self) -> list[dict[str, Any]]:
        """The nodes that are connected, with EasyRemote's words."""
        return [
            {
                "node_id": node["id"],
                "functions": node["functions"],
                "status": "connected",
                "current_load": node["running"] / node["max_concurrent"],
                "capabilities": sorted(_words(node["capabilities"])),
            }
            for node in self.nodes()
        ]

    def find_nodes(
        self,
        *,
        required_capabilities: Iterable[str] | None = None,
        required_functions: Iterable[str] | None = None,
    ) -> list[dict[str, Any]]:
        """The nodes that can do all these things, and have all these functions."""
        capabilities, functions = set(required_capabilities or ()), set(required_functions or ())
        return [
            node
            for node in self.list_nodes()
            if capabilities <= set(node["capabilities"]) and functions <= set(node["functions"])
        ]

    def resolve_node_id(self, **required: Any) -> str:
        """The one node that `find_nodes` finds; raises `NoHealthyNodesError` if it is not one."""
        found = [node["node_id"] for node in self.find_nodes(**required)]
        if len(found) != 1:
            raise NoHealthyNodesError(f"{len(found)} nodes match: {', '.join(sorted(found))}")
        return str(found[0])


def _words(capabilities: Any) -> Iterator[str]:
    if isinstance(capabilities, dict):
        for key, value in capabilities.items():
            yield str(key)
            yield from _words(value)
    elif isinstance(capabilities, list):
        for value in capabilities:
            yield from _words(value)
    elif isinstance(capabilities, str):
        yield capabilities


_default: Client | None = None


def set_default_gateway(gateway_address: str, **options: Any) -> Client:
    """The gateway of all calls of this process, and of those it starts, that name no other."""
    global _default
    os.environ["R3MES_GATEWAY"] = gateway_address
    _default = Client(gateway_address, **options)
    return _default


def get_default_client() -> Client | None:
    """The client of the default gateway, once it was set."""
    return _default


def _client() -> Client:
    return _default or Client()


def call(function_name: str, *args: Any, **kwargs: Any) -> Any:
    """Calls a function by the default gateway."""
    return _client().execute(function_name, *args, **kwargs)


def call_node(node_id: str, function_name: str, *args: Any, **kwargs: Any) -> Any:
    """Calls a function of one node."""
    return _client().execute_on_node(node_id, function_name, *args, **kwargs)


def call_stream(function_name: str, *args: Any, **kwargs: Any) -> Iterator[Any]:
    """Calls a function that yields items."""
    return _client().stream(function_name, *args, **kwargs)


def call_stream_node(node_id: str, function_name: str, *args: Any, **kwargs: Any) -> Iterator[Any]:
    """Calls a function of one node that yields items."""
    return _client().stream_on_node(node_id, function_name, *args, **kwargs)


def list_nodes() -> list[dict[str, Any]]:
    """The nodes that are connected to the default gateway."""
    return _client().list_nodes()
