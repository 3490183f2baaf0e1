"""A compute node: offers this machine's functions."""

from __future__ import annotations

import inspect
import os
import re
from typing import Any, Callable, Mapping, TypeVar, overload

from . import _gateway, _native, _schema
from ._functions import Offered
from ._workers import Loop, Threads

F = TypeVar("F", bound=Callable[..., Any])

#: Coroutines that run at a time unless a function says otherwise.
ASYNC_CONCURRENCY = 64


class ComputeNode:
    """A machine that offers functions through a gateway, to which it connects itself.

    :param vps_address: HOST:PORT of the gateway; found as for clients if not given.
    :param node_id: its name there, which belongs to this user's key for it from then on.
    :param capabilities: what it can do, for calls by capability.
    :param auth_token: a token, or the name of a stored one, where the gateway wants one.
    :param auth: the name of a stored one.
    :param max_concurrent: calls that it runs at a time, of all functions together.
    """

    def __init__(
        self,
        vps_address: str | None = None,
        node_id: str | None = None,
        capabilities: Mapping[str, Any] | None = None,
        *,
        auth_token: str | None = None,
        auth: str | None = None,
        max_concurrent: int = 256,
    ) -> None:
        self.node_id = node_id if node_id is not None else os.uname().nodename
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", self.node_id):
            raise ValueError(f"{self.node_id!r} is no node id: use letters, digits, -, _ and ., at most 64")
        self.capabilities = dict(capabilities or {})
        self.max_concurrent = max_concurrent
        self._given_gateway = vps_address
        self._token = (auth_token, auth)
        self._offered: dict[str, tuple[dict[str, Any], Offered, bool]] = {}
        self._handle: _native.NodeHandle | None = None
        self._threads: Threads | None = None
        self._loop: Loop | None = None

    @overload
    def register(self, function: F, /) -> F: ...
    @overload
    def register(
        self,
        *,
        name: str | None = None,
        stream: bool | None = None,
        async_func: bool | None = None,
        resource_requirements: Mapping[str, Any] | None = None,
        auth_required: bool | None = None,
        quota_per_user: str | None = None,
        access_level: str | None = None,
        scaling: str | None = None,
        billing: str | None = None,
        timeout: float | None = None,
        max_concurrent: int | None = None,
        isolation: str | None = None,
        idempotent: bool = False,
        pickle: bool = False,
        **labels: str,
    ) -> Callable[[F], F]: ...

    def register(self, *functions: Any, **options: Any) -> Any:
        """Offers a function; the decorated function stays as it is.

        :param name: its name at the gateway, if it is not its own.
        :param stream: whether it yields items; generators do without saying so.
        :param async_func: that it is a coroutine function, which is seen without saying so.
        :param resource_requirements: what it needs, such as `{"gpu_memory": "16GB"}`.
        :param auth_required: whether a caller needs a token.
        :param quota_per_user: how much one user may use it, such as `"2_hours_daily"` or `"100_calls_hourly"`.
        :param access_level: `"public"`, `"authenticated"`, or the name of a group that a caller's token must carry.
        :param billing: `"per_request"`, a label: calls are counted, and nothing is settled yet.
        :param timeout: seconds that a call may take.
        :param max_concurrent: calls of it that run at a time: 1 for functions, 64 for coroutines, if not given.
        :param isolation: `"thread"`.
        :param idempotent: whether another node may run a call again whose node was lost.
        :param pickle: whether pickled arguments are read. Reading one runs its sender's code.
        :param labels: further words, such as `pipeline="automated"`.
        """
        if not functions:
            return lambda function: self._register(function, **options)
        (function,) = functions
        return self._register(function, **options)

    def _register(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        stream: bool | None = None,
        async_func: bool | None = None,
        resource_requirements: Mapping[str, Any] | None = None,
        auth_required: bool | None = None,
        quota_per_user: str | None = None,
        access_level: str | None = None,
        scaling: str | None = None,
        billing: str | None = None,
        timeout: float | None = None,
        max_concurrent: int | None = None,
        isolation: str | None = None,
        idempotent: bool = False,
        pickle: bool = False,
        **labels: str,
    ) -> Callable[..., Any]:
        name = name or function.__name__
        yields = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
        offered = Offered(function, streams=yields if stream is None else stream)
        if yields and stream is False:
            raise ValueError(f"{name} is a generator: it streams, so stream=False cannot hold")
        if async_func is not None and async_func != offered.is_async:
            raise ValueError(f"{name} is {'' if offered.is_async else 'not '}defined with `async def`")
        if isolation not in (None, "thread"):
            raise ValueError(f"isolation may be 'thread', not {isolation!r}")
        if scaling is not None:
            raise ValueError(f"scaling={scaling!r} is not there yet: give max_concurrent")
        if billing not in (None, "per_request"):
            raise ValueError(f"billing may be 'per_request', not {billing!r}")
        if billing is not None:
            labels["billing"] = billing
        for label, value in labels.items():
            if not isinstance(value, str):
                raise TypeError(f"register() has no option {label!r}, and labels are text, not {value!r}")
        info = {
            "name": name,
            "description": inspect.getdoc(function) or "",
            "parameters": _schema.parameters_of(function, offered.hints),
            "returns": _schema.returns_of(offered.hints, offered.streams),
            "streams": offered.streams,
            "access": _access(name, auth_required, access_level),
            "max_concurrent": max_concurrent or (ASYNC_CONCURRENCY if offered.is_async else 1),
            "requirements": dict(resource_requirements or {}),
            "idempotent": idempotent,
            "labels": labels,
        }
        if quota_per_user is not None:
            info["quota"] = quota_per_user
        if timeout is not None:
            info["timeout_ms"] = max(0, round(timeout * 1000))
        if name in self._offered:
            raise ValueError(f"{name} is registered already")
        if self._handle is not None:
            raise RuntimeError(f"register {name} before the node serves")
        self._offered[name] = (info, offered, pickle)
        return function

    def start(self, *, ready: bool = True) -> ComputeNode:
        """Serves in the background.

        :param ready: whether to wait until the gateway has the functions.
        """
        if self._handle is not None:
            return self
        gateway, _ = _gateway.find_gateway(self._given_gateway)
        description = {
            "gateway": gateway,
            "id": self.node_id,
            "key": str(_gateway.config_folder() / "nodes" / f"{self.node_id}.key"),
            "token": _gateway.find_token(*self._token),
            "capabilities": self.capabilities,
            "max_concurrent": self.max_concurrent,
            "resources": _resources(),
        }
        offers = self._offered.values()
        threaded = sum(info["max_concurrent"] for info, offered, _ in offers if not offered.is_async)
        if threaded:
            self._threads = Threads(min(threaded, self.max_concurrent))
            self._threads.start()
        if any(offered.is_async for _, offered, _ in offers):
            self._loop = Loop()
            self._loop.start()
        functions = [
            (
                info,
                offered,
                offered.stream_maker,
                self._runner(offered),
                pickle,
                memoryview in offered.hints.values(),
            )
            for info, offered, pickle in offers
        ]
        self._handle = _native.NodeHandle(description, functions)
        if ready and not self._handle.ready():
            self.wait()
        return self

    def _runner(self, offered: Offered) -> Any:
        if offered.is_async:
            assert self._loop is not None
            return self._loop.mailbox
        assert self._threads is not None
        return self._threads.pool

    def wait(self) -> None:
        """Waits until the node has ended; raises `RuntimeError` if the gateway refuses it."""
        if self._handle is not None:
            refused = self._handle.wait()
            if refused is not None:
                raise RuntimeError(refused)

    def serve(self) -> None:
        """Serves until Ctrl-C, connecting again whenever the connection is lost; says when the gateway has it."""
        try:
            self.start()
            print(f"node {self.node_id} serves {', '.join(self._offered)}", flush=True)
            self.wait()
        except KeyboardInterrupt:
            pass
        finally:
            self.stop()

    def stop(self) -> None:
        """Leaves the gateway; calls that run are cancelled."""
        handle, self._handle = self._handle, None
        if handle is None:
            return
        handle.stop()
        handle.wait()
        for workers in (self._threads, self._loop):
            if workers is not None:
                workers.stop()
        self._threads = self._loop = None

    def __enter__(self) -> ComputeNode:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _access(name: str, auth_required: bool | None, access_level: str | None) -> str:
    if access_level is None:
        return "authenticated" if auth_required else "public"
    if auth_required is not None and auth_required != (access_level != "public"):
        raise ValueError(f"{name}: auth_required={auth_required} contradicts access_level={access_level!r}")
    return access_level


def _resources() -> dict[str, float]:
    """What this machine has at all: bytes of memory, and processors."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"memory": float(memory), "cpu_cores": float(os.cpu_count() or 1)}
