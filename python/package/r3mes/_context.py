"""What a running function can know of its call, and say to its caller."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from . import _native
from .errors import CallCancelledError

current_job: ContextVar[Any] = ContextVar("r3mes_job")


class ExecutionContext:
    """A call, as the function that runs it sees it.

    A parameter annotated `ExecutionContext` is given one; `ExecutionContext.current()` gives it anywhere.
    """

    __slots__ = ("_job",)

    def __init__(self, job: Any) -> None:
        #: A `_native.Job`, or what stands for one in a process of its own.
        self._job: _native.Job = job

    @classmethod
    def current(cls) -> ExecutionContext:
        """The context of the call that runs here."""
        try:
            return cls(current_job.get())
        except LookupError:
            raise RuntimeError("there is a context only while a node runs a function for somebody") from None

    @property
    def call_id(self) -> str:
        """The gateway's id of the call."""
        return self._job.call

    @property
    def user(self) -> str:
        """The user whose token the caller showed; empty without one."""
        return self._job.user

    @property
    def groups(self) -> list[str]:
        """Groups that the caller's token carries."""
        return self._job.groups

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the result any more."""
        return self._job.cancelled

    def check(self) -> None:
        """Raises `CallCancelledError` when nobody waits any more: a function that takes long calls it often."""
        if self._job.cancelled:
            raise CallCancelledError("nobody waits for this call any more")

    def progress(self, done: float | None = None, note: str = "") -> None:
        """Says how far the call has come: a share between 0 and 1, and a line for people.

        The first 4 KiB of the line are sent, and how many bytes were left out.
        """
        if done is not None and not 0 <= done <= 1:
            raise ValueError(f"progress is a share between 0 and 1, not {done}")
        self._job.progress(None if done is None else float(done), note)
