"""A compute node: offers this machine's functions."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Callable, Mapping, TypeVar, overload

from . import _gateway, _native
from ._functions import Isolated, Offered
from ._workers import Loop, Threads

if TYPE_CHECKING:
    from ._processes import Processes

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
    :param ca: the file of the certificate authority to trust, where the gateway is tls://HOST:PORT.
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
        ca: str | os.PathLike[str] | None = None,
        max_concurrent: int = 256,
    ) -> None:
        self.node_id = node_id if node_id is not None else os.uname().nodename
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", self.node_id):
            raise ValueError(f"{self.node_id!r} is no node id: use letters, digits, -, _ and ., at most 64")
        self.capabilities = dict(capabilities or {})
        self.max_concurrent = max_concurrent
        self._given_gateway = vps_address
        self._token = (auth_token, auth)
        self._ca = ca
        self._offered: dict[str, tuple[dict[str, Any], Offered, bool]] = {}
        self._isolated: set[str] = set()
        self._processes: Processes | None = None
        self._handle: _native.NodeHandle | None = None
        #: Why it cannot go on, if so.
        self._lost: str | None = None
        self._threads: Threads | None = None
        self._loop: Loop | None = None

    @overload
    def register(self, function: F, /) -> F: ...
    @overload
    def register(
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        stream: bool | None = None,
        async_func: bool | None = None,
        resource_requirements: Mapping[str, Any] | None = None,
        auth_required: bool | None = None,
        quota_per_user: str | None = None,
        access_level: str | None = None,
        scaling: str | None = None,
        billing: str | None = None,
        price: int | None = None,
        payee: str | None = None,
        timeout: float | None = None,
        max_concurrent: int | None = None,
        isolation: str | None = None,
        idempotent: bool = False,
        splittable: bool = False,
        cacheable: bool = False,
        pickle: bool = False,
        **labels: str,
    ) -> Callable[[F], F]: ...

    def register(self, *functions: Any, **options: Any) -> Any:
        """Offers a function; the decorated function stays as it is.

        :param name: its name at the gateway, if it is not its own.
        :param description: what it does, for people and language models; its docstring if not given.
        :param stream: whether it yields items; generators do without saying so.
        :param async_func: that it is a coroutine function, which is seen without saying so.
        :param resource_requirements: what it needs, such as `{"gpu_memory": "16GB"}`.
        :param auth_required: whether a caller needs a token.
        :param quota_per_user: how much one user may use it, such as `"2_hours_daily"` or `"100_calls_hourly"`.
        :param access_level: `"public"`, `"authenticated"`, or the name of a group that a caller's token must carry.
        :param scaling: `"auto"`: runs in as many processes as there are calls, up to `max_concurrent`, which is the
            number of processors if not given; those that have nothing to do end again.
        :param billing: `"per_request"`. With a price, calls are paid out of escrows on the ledger; a gateway
            without a ledger refuses the node then. Without a price it is a label, and nothing is settled.
        :param price: what a call costs, in uremes (millionths of a REMES).
        :param payee: the account that is paid, `"remes1..."`.
        :param timeout: seconds that a call may take.
        :param max_concurrent: calls of it that run at a time: 1 for functions, 64 for coroutines, if not given.
        :param isolation: `"thread"`, or `"process"`: each call runs in a process, which ends with it when it is cancelled.
        :param idempotent: whether another node may run a call again whose node was lost.
        :param splittable: that it takes a list first and returns as long a list, an entry for each, so that calls with
            `optimization="auto"` may give each node a part.
        :param cacheable: that its result follows from the arguments alone, so that the gateway may keep it for callers who
            take one that is not new (`max_age`). No stream is kept, and no result of a function with a price.
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
        description: str | None = None,
        stream: bool | None = None,
        async_func: bool | None = None,
        resource_requirements: Mapping[str, Any] | None = None,
        auth_required: bool | None = None,
        quota_per_user: str | None = None,
        access_level: str | None = None,
        scaling: str | None = None,
        billing: str | None = None,
        price: int | None = None,
        payee: str | None = None,
        timeout: float | None = None,
        max_concurrent: int | None = None,
        isolation: str | None = None,
        idempotent: bool = False,
        splittable: bool = False,
        cacheable: bool = False,
        pickle: bool = False,
        **labels: str,
    ) -> Callable[..., Any]:
        import inspect

        from . import _schema

        name = name or function.__name__
        yields = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
        offered = Offered(function, streams=yields if stream is None else stream)
        if yields and stream is False:
            raise ValueError(f"{name} is a generator: it streams, so stream=False cannot hold")
        if async_func is not None and async_func != offered.is_async:
            raise ValueError(f"{name} is {'' if offered.is_async else 'not '}defined with `async def`")
        isolation = _isolation(name, isolation, scaling, offered.is_async)
        if max_concurrent is None:
            max_concurrent = ASYNC_CONCURRENCY if offered.is_async else (os.cpu_count() or 1) if scaling else 1
        if billing not in (None, "per_request"):
            raise ValueError(f"billing may be 'per_request', not {billing!r}")
        if billing is not None:
            labels["billing"] = billing
        if (price is None) != (payee is None):
            raise ValueError(f"{name}: a price needs a payee, and a payee a price")
        if price is not None and (not isinstance(price, int) or price <= 0):
            raise ValueError(f"{name}: a price is a whole number of uremes above 0, not {price!r}")
        for label, value in labels.items():
            if not isinstance(value, str):
                raise TypeError(f"register() has no option {label!r}, and labels are text, not {value!r}")
        info = {
            "name": name,
            "description": description or inspect.getdoc(function) or "",
            "parameters": _schema.parameters_of(function, offered.hints),
            "returns": _schema.returns_of(offered.hints, offered.streams),
            "streams": offered.streams,
            "access": _access(name, auth_required, access_level),
            "max_concurrent": max_concurrent,
            "requirements": dict(resource_requirements or {}),
            "idempotent": idempotent,
            "cacheable": cacheable,
            "labels": labels,
        }
        if cacheable and (offered.streams or price is not None):
            raise ValueError(f"{name} cannot be cacheable: no stream is kept, and a kept result would earn no price")
        if splittable and (offered.streams or offered.takes_nothing):
            raise ValueError(f"{name} cannot be splittable: it must take a list first, and return one")
        if splittable:
            info["splittable"] = True
        if quota_per_user is not None:
            info["quota"] = quota_per_user
        if price is not None:
            info["price"] = {"uremes": price, "payee": payee}
        if timeout is not None:
            info["timeout_ms"] = max(0, round(timeout * 1000))
        if name in self._offered:
            raise ValueError(f"{name} is registered already")
        if self._handle is not None:
            raise RuntimeError(f"register {name} before the node serves")
        self._offered[name] = (info, offered, pickle)
        if isolation == "process":
            self._isolated.add(name)
        return function

    def start(self, *, ready: bool = True) -> ComputeNode:
        """Serves in the background.

        :param ready: whether to wait until the gateway has the functions.
        """
        if self._handle is not None:
            return self
        try:
            self._start()
            assert self._handle is not None
            if ready and not self._handle.ready():
                self.wait()
        except BaseException:
            self.stop()
            raise
        return self

    def _start(self) -> None:
        self._lost = None
        gateway, _ = _gateway.find_gateway(self._given_gateway)
        description = {
            "gateway": gateway,
            "id": self.node_id,
            "key": str(_gateway.config_folder() / "nodes" / f"{self.node_id}.key"),
            "token": _gateway.find_token(*self._token),
            "ca": _gateway.find_ca(self._ca),
            "capabilities": self.capabilities,
            "max_concurrent": self.max_concurrent,
            "resources": _native.Machine().resources(),
        }
        if self._isolated:
            from ._processes import Processes

            isolated = {name: self._offered[name] for name in self._isolated}
            runs = {name: (offered, pickle) for name, (_, offered, pickle) in isolated.items()}
            self._processes = Processes(runs, self._lose)
        offers = self._offered.values()
        threaded = sum(info["max_concurrent"] for info, offered, _ in offers if not offered.is_async)
        if threaded:
            threads = Threads(min(threaded, self.max_concurrent))
            threads.start()
            self._threads = threads
        if any(offered.is_async for _, offered, _ in offers):
            loop = Loop()
            loop.start()
            self._loop = loop
        functions = [
            (
                info,
                offered if self._processes is None or name not in self._isolated else Isolated(name, self._processes),
                offered.stream_maker,
                self._runner(offered),
                pickle,
                memoryview in offered.hints.values(),
            )
            for name, (info, offered, pickle) in self._offered.items()
        ]
        self._handle = _native.NodeHandle(description, functions)
        if self._lost is not None:
            self._handle.stop()

    def _lose(self, why: str) -> None:
        """Ends the node, as it cannot run what it offers any more; `wait` raises why."""
        import logging

        logging.getLogger("r3mes").error("node %s: %s", self.node_id, why)
        self._lost = why
        handle = self._handle
        if handle is not None:
            handle.stop()

    def _runner(self, offered: Offered) -> Any:
        if offered.is_async:
            assert self._loop is not None
            return self._loop.mailbox
        assert self._threads is not None
        return self._threads.pool

    def wait(self) -> None:
        """Waits until the node has ended; raises `RuntimeError` if the gateway refuses it, or it cannot go on."""
        if self._handle is not None:
            failed = self._handle.wait() or self._lost
            if failed is not None:
                raise RuntimeError(failed)

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
        if handle is not None:
            handle.stop()
            handle.wait()
        for workers in (self._threads, self._loop, self._processes):
            if workers is not None:
                workers.stop()
        self._threads = self._loop = self._processes = None

    def __enter__(self) -> ComputeNode:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _isolation(name: str, isolation: str | None, scaling: str | None, is_async: bool) -> str:
    if isolation not in (None, "thread", "process"):
        raise ValueError(f"isolation may be 'thread' or 'process', not {isolation!r}")
    if scaling not in (None, "auto"):
        raise ValueError(f"scaling may be 'auto', not {scaling!r}")
    if is_async and (scaling or isolation):
        raise ValueError(f"{name} is a coroutine function, which runs on the event loop: define it with plain `def`")
    if scaling and isolation == "thread":
        raise ValueError(f"{name}: scaling='auto' runs in processes, which isolation='thread' forbids")
    return "process" if scaling else isolation or "thread"


def _access(name: str, auth_required: bool | None, access_level: str | None) -> str:
    if access_level is None:
        return "authenticated" if auth_required else "public"
    if auth_required is not None and auth_required != (access_level != "public"):
        raise ValueError(f"{name}: auth_required={auth_required} contradicts access_level={access_level!r}")
    return access_level

