"""Calling functions that run elsewhere."""

from __future__ import annotations

import functools
import os
import sys
import threading
import typing
from typing import Any, AsyncIterator, Callable, Iterator, Mapping, ParamSpec, TypeVar, overload

from . import _gateway, _native, _values
from .errors import InvalidCallError

if typing.TYPE_CHECKING:
    from .metrics import Metrics

P = ParamSpec("P")
R = TypeVar("R")

STRATEGIES = ("score", "round_robin", "least_loaded", "random", "soonest")
#: Seconds that a call may name at most: ten years, which whole milliseconds hold.
MOST_SECONDS = 315_360_000
_STREAM_ORIGINS = frozenset(
    {"Iterator", "Iterable", "Generator", "AsyncIterator", "AsyncIterable", "AsyncGenerator"}
)


def running_loop() -> Any:
    """The event loop that runs in this thread, if there is one; does not import asyncio to see that there is none."""
    events = sys.modules.get("asyncio.events")
    return None if events is None else events._get_running_loop()


def _has_iterator(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return any(map(_values._is_iterator, args)) or any(map(_values._is_iterator, kwargs.values()))


class _Pump:
    """Sends the items of an argument while the results are read."""

    def __init__(self, upload: _native.Upload, items: Any, stream: _native.Stream) -> None:
        self._upload, self._items, self._stream = upload, items, stream
        self.error: BaseException | None = None

    def run(self) -> None:
        """Sends items of an iterator, in a thread of its own."""
        try:
            for item in self._items:
                if not self._upload.send(item):
                    break
            self._upload.end()
        except BaseException as error:  # noqa: BLE001 - the reader of the results raises it
            self._fail(error)

    async def run_async(self) -> None:
        """Sends items of an asynchronous iterator."""
        import asyncio

        from ._loops import mail_of

        loop = asyncio.get_running_loop()
        mailbox = mail_of(loop).mailbox
        try:
            async for item in self._items:
                future = loop.create_future()
                sent = self._upload.send_soon(item, mailbox, future)
                if not (await future if sent is None else sent):
                    break
            await loop.run_in_executor(None, self._upload.end)
        except BaseException as error:  # noqa: BLE001
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self.error = error
        self._stream.close()

    def check(self) -> None:
        """Raises what went wrong with the argument."""
        if self.error is not None:
            raise self.error


class Stream(Iterator[Any], AsyncIterator[Any]):
    """Items that a function yields, for `for` and `async for`. Closed before the end, it cancels the call."""

    def __init__(self, opened: Callable[[], Any]) -> None:
        self._opened = opened
        self._native: _native.Stream | None = None
        self._pump: _Pump | None = None
        self._task: Any = None
        self._closed = False

    def _open(self) -> None:
        self._native, upload = self._opened()
        if upload is not None:
            self._pump = _Pump(upload[0], upload[1], self._native)
            if not hasattr(type(upload[1]), "__anext__"):
                threading.Thread(target=self._pump.run, name="r3mes items", daemon=True).start()

    def _start_task(self, loop: Any) -> None:
        if self._pump is not None and self._task is None and hasattr(type(self._pump._items), "__anext__"):
            self._task = loop.create_task(self._pump.run_async())

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Any:
        if self._native is None:
            if self._closed:
                raise StopIteration
            self._open()
            assert self._native is not None
            if self._pump is not None and hasattr(type(self._pump._items), "__anext__"):
                self.close()
                raise TypeError("an asynchronous iterator can be sent only from a running event loop")
        try:
            return self._native.__next__()
        except StopIteration:
            if self._pump is not None:
                self._pump.check()
            raise

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        import asyncio

        from ._loops import mail_of

        loop = asyncio.get_running_loop()
        if self._native is None:
            if self._closed:
                raise StopAsyncIteration
            await loop.run_in_executor(None, self._open)
            self._start_task(loop)
        assert self._native is not None
        came = self._native.look()
        if came is None:
            return self._ended()
        there, item = came
        if there:
            return item
        future = loop.create_future()
        self._native.settle(mail_of(loop).mailbox, future)
        try:
            return await future
        except StopAsyncIteration:
            return self._ended()
        except asyncio.CancelledError:
            self.close()
            raise

    def _ended(self) -> Any:
        if self._pump is not None:
            self._pump.check()
        raise StopAsyncIteration

    @property
    def progress(self) -> Progress | None:
        """How far the call said that it has come, when the last item came."""
        told = None if self._native is None else self._native.progress()
        return None if told is None else Progress(*told)

    def close(self) -> None:
        """Wants no more items: the call is cancelled if it still runs."""
        self._closed = True
        if self._native is not None:
            self._native.close()
        if self._task is not None:
            self._task.cancel()

    async def aclose(self) -> None:
        """As `close`."""
        self.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def only(self) -> Any:
        """The one value of a function that returns one."""
        return self._only(next(self, _NOTHING))

    async def only_async(self) -> Any:
        """The one value of a function that returns one."""
        async for value in self:
            self.close()
            return value
        return self._only(_NOTHING)

    def _only(self, value: Any) -> Any:
        self.close()
        if value is _NOTHING:
            raise InvalidCallError("the function ended without a result")
        return value


_NOTHING = object()


class Progress(typing.NamedTuple):
    """How far a call has come, as its function says."""

    #: Share that is done, 0 to 1, if it is known.
    done: float | None
    #: A line for people.
    note: str


Watcher = Callable[[Progress], object]


def _told(watcher: Watcher | None) -> Callable[[float | None, str], None] | None:
    if watcher is None:
        return None

    def tell(done: float | None, note: str) -> None:
        watcher(Progress(done, note))

    return tell


class RemoteFunction(typing.Generic[P, R]):
    """A function that runs elsewhere, called as if it were here.

    Called outside of a running event loop it returns the value; inside of one it returns something to
    `await`. One that streams returns a `Stream` in both cases.
    """

    def __init__(self, function: str, head: dict[str, Any], **options: Any) -> None:
        if not function.isidentifier():
            raise ValueError(f"{function!r} is no function's name")
        self.__name__ = self.__qualname__ = self._function = function
        self._gateway: str | None = options["gateway"]
        self._token = (options["auth_token"], options["auth"])
        self._ca: str | os.PathLike[str] | None = options["ca"]
        self._streams: bool = options["stream"]
        self._given = (head, options)
        self._native_head = _native.Head(
            _native.encode({"function": function, **head}),
            pickle=options["pickle"],
            views=options["views"],
            convert=options["convert"],
            progress=_told(options["progress"]),
        )
        self._splits: bool = options["optimization"] == "auto" and not self._streams
        #: The connection that was used last, and the process whose it is: one that is forked must not use it.
        self._connection: tuple[int, _native.Connection] | None = None

    def with_progress(self, progress: Watcher | None) -> RemoteFunction[P, R]:
        """The same function, whose calls tell `progress` how far they have come, as `remote(progress=)` says."""
        head, options = self._given
        return RemoteFunction(self._function, head, **{**options, "progress": progress})

    def __repr__(self) -> str:
        return f"<remote function {self.__name__}>"

    def _connect(self) -> _native.Connection:
        token = _gateway.find_token(*self._token)
        connection = _gateway.connect(self._gateway, token, _gateway.find_ca(self._ca))
        self._connection = (os.getpid(), connection)
        return connection

    def _ready(self) -> _native.Connection | None:
        if self._connection is None:
            return None
        process, connection = self._connection
        return connection if process == os.getpid() and connection.connected() else None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        loop = running_loop()
        if self._streams:
            return Stream(lambda: self._open(args, kwargs))
        if _has_iterator(args, kwargs):
            stream = Stream(lambda: self._open(args, kwargs))
            return stream.only() if loop is None else loop.create_task(stream.only_async())
        if self._splits and args and isinstance(args[0], (list, tuple)) and len(args[0]) > 1:
            return self._call_split(args, kwargs) if loop is None else loop.create_task(self._await_split(args, kwargs))
        return self._call_whole(loop, args, kwargs)

    def _call_whole(self, loop: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        connection = self._ready()
        if loop is not None:
            if connection is None:
                return loop.create_task(self._connect_and_start(loop, args, kwargs))
            return self._start(connection, loop, args, kwargs)
        return (connection or self._connect()).call(self._native_head, args, kwargs or None)

    def _places(self) -> int:
        from . import _split

        functions = (self._ready() or self._connect()).functions()
        return _split.places_for(functions, self._function, self._given[0].get("node"))

    def _call_split(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        from . import _split

        places = self._places()
        if places < 2:
            return self._call_whole(None, args, kwargs)
        parts = _split.parts_of(args[0], places)
        return _split.call_parts(lambda part: self._call_whole(None, (part, *args[1:]), kwargs), parts, places)

    async def _await_split(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        import asyncio

        from . import _split

        loop = asyncio.get_running_loop()
        places = await loop.run_in_executor(None, self._places)
        if places < 2:
            return await self._call_whole(loop, args, kwargs)
        parts = _split.parts_of(args[0], places)
        return await _split.await_parts(lambda part: self._call_whole(loop, (part, *args[1:]), kwargs), parts)

    def _open(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        connection = self._ready() or self._connect()
        return connection.open(self._native_head, args, kwargs or None)

    def _start(
        self, connection: _native.Connection, loop: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        from ._loops import PendingReply, mail_of

        future = PendingReply(loop=loop)
        future.call = connection.start(self._native_head, args, kwargs or None, mail_of(loop).mailbox, future)
        return future

    async def _connect_and_start(self, loop: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        connection = await loop.run_in_executor(None, self._connect)
        return await self._start(connection, loop, args, kwargs)


def _streams_by_form(stub: Callable[..., Any], hints: dict[str, Any]) -> bool:
    import inspect

    if inspect.isgeneratorfunction(stub) or inspect.isasyncgenfunction(stub):
        return True
    origin = typing.get_origin(hints.get("return"))
    return getattr(origin, "__name__", None) in _STREAM_ORIGINS


def _item_hint(hints: dict[str, Any], streams: bool) -> Any:
    hint = hints.get("return")
    if not streams:
        return hint
    arguments = typing.get_args(hint)
    return arguments[0] if arguments else None


def _check_choice(name: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise ValueError(f"{name} may be {' or '.join(map(repr, choices))}, not {value!r}")


@overload
def remote(stub: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def remote(
    node: str,
    function: str,
    /,
    *,
    requirements: Mapping[str, Any] | None = None,
    timeout: float | None = None,
    max_price: int | None = None,
    max_age: float | None = None,
    stream: bool | None = None,
    gateway: str | None = None,
    auth_token: str | None = None,
    auth: str | None = None,
    ca: str | os.PathLike[str] | None = None,
    pickle: bool = False,
    views: bool = False,
    progress: Watcher | None = None,
) -> RemoteFunction[..., Any]: ...
@overload
def remote(
    *nodes: str,
    node_id: str | None = None,
    function: str | None = None,
    capability: str | None = None,
    requirements: Mapping[str, Any] | None = None,
    strategy: str | None = None,
    timeout: float | None = None,
    max_price: int | None = None,
    max_age: float | None = None,
    stream: bool | None = None,
    gateway: str | None = None,
    auth_token: str | None = None,
    auth: str | None = None,
    ca: str | os.PathLike[str] | None = None,
    scaling: str | None = None,
    optimization: str | None = None,
    pickle: bool = False,
    views: bool = False,
    progress: Watcher | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def remote(
    *names: Any,
    node_id: str | None = None,
    function: str | None = None,
    capability: str | None = None,
    requirements: Mapping[str, Any] | None = None,
    strategy: str | None = None,
    timeout: float | None = None,
    max_price: int | None = None,
    max_age: float | None = None,
    stream: bool | None = None,
    gateway: str | None = None,
    auth_token: str | None = None,
    auth: str | None = None,
    ca: str | os.PathLike[str] | None = None,
    scaling: str | None = None,
    optimization: str | None = None,
    pickle: bool = False,
    views: bool = False,
    progress: Watcher | None = None,
) -> Any:
    """A function that runs elsewhere: as a decorator of a stub, whose body never runs, or by its names.

    :param names: a node and a function, for a function without a stub: `remote("node", "function")`.
    :param node_id: only on this node; on any that offers the function otherwise.
    :param function: the function's name there, if it is not the stub's.
    :param capability: only on a node that can do this.
    :param requirements: only on a node that has this, such as `{"gpu_memory": "16GB"}`.
    :param strategy: how a node is chosen among several: `score`, `round_robin`, `least_loaded`, `random` or `soonest`.
    :param timeout: seconds in which the call must end.
    :param max_price: the most that the call may cost, in uremes; only functions without a price if not given.
    :param max_age: seconds that a result may be old which the gateway has kept; only of functions that are `cacheable`,
        and no kept one is taken if not given.
    :param stream: whether the function yields items; told by the stub's form if not given.
    :param gateway: HOST:PORT; found as the documentation says if not given.
    :param auth_token: a token, or the name of a stored one.
    :param auth: the name of a stored token, which must be there.
    :param ca: the file of the certificate authority to trust, where the gateway is tls://HOST:PORT.
    :param scaling: `"auto"`: how many run at a time is the node's business, so it changes nothing here.
    :param optimization: `"auto"`: a list as first argument is spread over the nodes, if the function is `splittable`
        there; the results keep its order, and `PartialFailureError` says which inputs have none. Unless a strategy is
        named, a call goes to the node that is expected to end it soonest.
    :param pickle: whether pickled values are sent and read. Reading one runs its sender's code.
    :param views: whether bytes come as views of the memory that they arrived in.
    :param progress: called with a `Progress` whenever the function says how far it has come, in the thread or the event
        loop of the caller; what it raises ends the call. Of a function that streams, `Stream.progress` tells.
    """
    _check_choice("strategy", strategy, STRATEGIES)
    _check_choice("scaling", scaling, ("auto",))
    _check_choice("optimization", optimization, ("auto",))
    if timeout is not None and not 0 < timeout <= MOST_SECONDS:
        raise ValueError(f"timeout must be more than 0 and at most {MOST_SECONDS} seconds, not {timeout}")
    if max_age is not None and not 0 <= max_age <= MOST_SECONDS:
        raise ValueError(f"max_age must be 0 to {MOST_SECONDS} seconds, not {max_age}: a result is kept for an hour")
    stub = names[0] if len(names) == 1 and callable(names[0]) else None
    if names and stub is None:
        if len(names) > 2 or not all(isinstance(name, str) for name in names):
            raise TypeError("remote() takes a stub, the name of a node, or the names of a node and a function")
        node_id = names[0]
    head = {
        "node": node_id,
        "capability": capability,
        "requirements": dict(requirements) if requirements else None,
        "strategy": strategy or ("soonest" if optimization == "auto" else None),
        "deadline_ms": None if timeout is None else max(1, round(timeout * 1000)),
        "max_price": max_price,
        "max_age_ms": None if max_age is None else round(max_age * 1000),
    }
    head = {name: entry for name, entry in head.items() if entry is not None}
    options: dict[str, Any] = {
        "gateway": gateway,
        "auth_token": auth_token,
        "auth": auth,
        "ca": ca,
        "pickle": pickle,
        "progress": progress,
        "optimization": optimization,
    }

    def of_stub(stub: Callable[..., Any]) -> Any:
        import inspect

        hints = _values.hints_of(stub)
        streams = _streams_by_form(stub, hints) if stream is None else stream
        made: RemoteFunction[..., Any] = RemoteFunction(
            function or stub.__name__,
            head,
            stream=streams,
            views=views or _values.wants_views(hints),
            convert=_values.converter(_item_hint(hints, streams)),
            **options,
        )
        if inspect.iscoroutinefunction(stub):

            @functools.wraps(stub)
            async def calling(*args: Any, **kwargs: Any) -> Any:
                return await made(*args, **kwargs)

            return calling
        functools.update_wrapper(made, stub)
        return made

    if stub is not None:
        return of_stub(stub)
    if len(names) == 2:
        return RemoteFunction(
            names[1], head, stream=bool(stream), views=views, convert=None, **options
        )
    return of_stub


class Client:
    """A client of one gateway.

    :param gateway: HOST:PORT; found as the documentation says if not given.
    :param auth_token: a token, or the name of a stored one.
    :param auth: the name of a stored token, which must be there.
    :param ca: the file of the certificate authority to trust, where the gateway is tls://HOST:PORT.
    """

    def __init__(
        self,
        gateway: str | None = None,
        *,
        auth_token: str | None = None,
        auth: str | None = None,
        ca: str | os.PathLike[str] | None = None,
    ) -> None:
        self._options: dict[str, Any] = {"gateway": gateway, "auth_token": auth_token, "auth": auth, "ca": ca}
        self._functions: dict[tuple[str | None, str], RemoteFunction[..., Any]] = {}

    @property
    def gateway(self) -> str:
        """HOST:PORT of the gateway."""
        return _gateway.find_gateway(self._options["gateway"])[0]

    def function(self, name: str, *, node_id: str | None = None, **options: Any) -> RemoteFunction[..., Any]:
        """A function by its name, which may be `node.function`; options as those of `remote`."""
        if node_id is None and "." in name:
            node_id, name = name.rsplit(".", 1)
        stream = options.pop("stream", False)
        head = {"node": node_id} if node_id else {}
        if options:
            raise TypeError(f"unknown options: {', '.join(options)}; use remote() for more")
        return RemoteFunction(
            name, head, stream=stream, views=False, pickle=False, convert=None, progress=None, optimization=None, **self._options
        )

    def execute(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Calls a function, which may be named `node.function`."""
        return self.execute_on_node(None, name, *args, **kwargs)

    def execute_on_node(self, node_id: str | None, name: str, *args: Any, **kwargs: Any) -> Any:
        """Calls a function of one node."""
        known = self._functions.get((node_id, name))
        if known is None:
            known = self._functions[node_id, name] = self.function(name, node_id=node_id)
        return known(*args, **kwargs)

    def _connection(self) -> _native.Connection:
        token = _gateway.find_token(self._options["auth_token"], self._options["auth"])
        return _gateway.connect(self._options["gateway"], token, _gateway.find_ca(self._options["ca"]))

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes that are connected."""
        return self._connection().nodes()

    def functions(self) -> list[dict[str, Any]]:
        """The functions that may be called."""
        return self._connection().functions()

    def metrics(self) -> Metrics:
        """How the gateway and its nodes do, as the gateway tells over HTTP, and the calls of this process."""
        from .metrics import from_gateway

        token = _gateway.find_token(self._options["auth_token"], self._options["auth"])
        told = _gateway.ask_http("/api/metrics", self._options["gateway"], token, _gateway.find_ca(self._options["ca"]))
        return from_gateway(told)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        pass
