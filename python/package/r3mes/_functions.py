"""A function on offer: how a call of it runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, AsyncIterator, Callable, Iterator

from . import _native, _values
from ._context import ExecutionContext, current_job

if TYPE_CHECKING:
    from ._processes import Processes


def describe(error: BaseException) -> tuple[str, str, str, str]:
    """An exception as a failure: reason, message, type and traceback."""
    import traceback

    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    own = error.__traceback__
    while own is not None and own.tb_frame.f_globals.get("__package__") == __package__:
        own = own.tb_next
    lines = traceback.format_exception(kind, error, own)
    return "raised", str(error), name, "".join(lines)


class JobItems:
    """The items of an argument, for a function that runs in a thread."""

    def __init__(self, job: _native.Job) -> None:
        self._job = job

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self._job.next()


class AsyncJobItems:
    """The items of an argument, for a function that runs on the event loop."""

    def __init__(self, job: _native.Job) -> None:
        self._job = job

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        import asyncio

        from ._loops import mail_of

        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._job.next_soon(mail_of(loop).mailbox, future)
        return await future


class Offered:
    """A function, and what its annotations ask for."""

    def __init__(self, function: Callable[..., Any], *, streams: bool) -> None:
        import inspect

        self.function = function
        self.is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        self.streams = streams
        self.hints = _values.hints_of(function)
        self._positional: list[_values.Converter | None] = []
        self._named: dict[str, _values.Converter] = {}
        self._context: str | None = None
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        #: Positional parameters before the context; more than any call has where it goes by name.
        self._context_at = sys.maxsize
        for name, parameter in inspect.signature(function).parameters.items():
            hint = self.hints.get(name)
            if hint is ExecutionContext:
                self._context = name
                if parameter.kind in positional:
                    self._context_at = len(self._positional)
                continue
            convert = _values.converter(hint)
            if parameter.kind in positional:
                self._positional.append(convert)
            if convert is not None:
                self._named[name] = convert
        self._plain = not self._named and self._context is None

    @property
    def takes_nothing(self) -> bool:
        """Whether it has no positional parameter."""
        return not self._positional

    @property
    def stream_maker(self) -> type:
        """What makes an iterable of the items of an argument."""
        return AsyncJobItems if self.is_async else JobItems

    def prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Converts positional arguments, and the named ones in place."""
        for name, value in kwargs.items():
            convert = self._named.get(name)
            if convert is not None:
                kwargs[name] = convert(value)
        positional = self._positional
        converted = [
            value if at >= len(positional) or positional[at] is None else positional[at](value)  # type: ignore[misc]
            for at, value in enumerate(args)
        ]
        return tuple(converted)

    def adapt(self, job: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments as the function wants them."""
        if not self._plain:
            args = self.prepare(args, kwargs)
            if self._context is not None and self._context_at < len(args):
                args = (*args[: self._context_at], ExecutionContext(job), *args[self._context_at :])
            elif self._context is not None:
                kwargs[self._context] = ExecutionContext(job)
        return args, kwargs

    def _arguments(self, job: _native.Job) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return self.adapt(job, *job.arguments())

    def run(self, job: _native.Job) -> None:
        """Runs a call in this thread."""
        token = current_job.set(job)
        try:
            args, kwargs = self._arguments(job)
            if not self.streams:
                job.finish(self.function(*args, **kwargs))
                return
            items = iter(self.function(*args, **kwargs))
            try:
                for item in items:
                    if not job.send(item):
                        break
            finally:
                close = getattr(items, "close", None)
                if close is not None:
                    close()
            job.finish_stream()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the caller is told
            job.fail(*describe(error))
        finally:
            current_job.reset(token)

    async def run_async(self, job: _native.Job) -> None:
        """Runs a call on the event loop."""
        import asyncio

        from ._loops import mail_of

        current_job.set(job)
        try:
            args, kwargs = self._arguments(job)
            if not self.streams:
                job.finish(await self.function(*args, **kwargs))
                return
            loop = asyncio.get_running_loop()
            mailbox = mail_of(loop).mailbox
            items = self.function(*args, **kwargs)
            try:
                async for item in items:
                    future = loop.create_future()
                    sent = job.send_soon(item, mailbox, future)
                    if not (await future if sent is None else sent):
                        break
            finally:
                await items.aclose()
            job.finish_stream()
        except asyncio.CancelledError:
            job.fail("cancelled", "the call was cancelled")
        except BaseException as error:  # noqa: BLE001
            job.fail(*describe(error))


class Isolated:
    """A function whose calls run in processes of their own; the thread that has one waits for it."""

    def __init__(self, name: str, processes: Processes) -> None:
        self._name, self._processes = name, processes

    def run(self, job: _native.Job) -> None:
        """Runs a call."""
        try:
            self._processes.run(job, self._name)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the caller is told
            job.fail(*describe(error))
