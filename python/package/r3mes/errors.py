"""Why a call failed."""

from __future__ import annotations

import builtins


class CallError(Exception):
    """A call did not succeed."""

    #: Seconds after which trying again may help, where the gateway knows.
    retry_after: float | None = None


class FunctionNotFoundError(CallError, LookupError):
    """No node offers such a function."""


class NoHealthyNodesError(CallError):
    """Nodes offer the function, and none of them can take a call."""


class AuthenticationError(CallError, PermissionError):
    """The token is missing, was not given out, was revoked or has expired."""


class AccessDeniedError(CallError, PermissionError):
    """The caller may not call this function."""


class QuotaExceededError(CallError):
    """The caller has used up what it may use; `retry_after` says when there is more."""


class PaymentRequiredError(CallError):
    """The function has a price that the caller did not agree to (`max_price`), or cannot pay here."""


class BusyError(CallError):
    """Too many calls wait already."""


class InvalidCallError(CallError, ValueError):
    """The call itself is malformed."""


class CallTimeoutError(CallError, TimeoutError):
    """The call's time was over."""


class CallCancelledError(CallError):
    """The call was cancelled."""


class NodeLostError(CallError, ConnectionError):
    """The node that had the call is gone. Whether it did its work is not known."""


class GatewayLostError(CallError, ConnectionError):
    """The connection to the gateway is gone. Whether the function did its work is not known."""


class GatewayUnreachableError(CallError, ConnectionError):
    """There is no connection to a gateway."""


class PartialFailureError(CallError):
    """Of a call that was split over nodes, some parts failed."""

    def __init__(self, results: list[object], failures: list[tuple[range, CallError]]) -> None:
        missing = sum(len(inputs) for inputs, _ in failures)
        inputs, first = failures[0]
        super().__init__(
            f"{missing} of {len(results)} inputs have no result; those from {inputs.start} to {inputs.stop - 1} "
            f"failed with {type(first).__name__}: {first}"
        )
        #: The results in the order of the inputs, `None` where there is none.
        self.results = results
        #: Which inputs failed, and why.
        self.failures = failures


class InternalError(CallError):
    """A fault of the node or the gateway."""


class RemoteError(CallError):
    """The function raised an exception.

    Of an exception that Python itself defines, what is raised here is a `RemoteError` and that
    exception too, so that `except ValueError` works.
    """

    #: The exception's type, with its module unless that is `builtins`.
    type: str
    #: What the exception said.
    message: str
    #: Where the function raised it.
    remote_traceback: str | None


_BY_REASON: dict[str, type[CallError]] = {
    "not_found": FunctionNotFoundError,
    "no_healthy_nodes": NoHealthyNodesError,
    "unauthenticated": AuthenticationError,
    "denied": AccessDeniedError,
    "quota_exceeded": QuotaExceededError,
    "payment_required": PaymentRequiredError,
    "busy": BusyError,
    "invalid": InvalidCallError,
    "deadline_exceeded": CallTimeoutError,
    "cancelled": CallCancelledError,
    "node_lost": NodeLostError,
    "disconnected": GatewayLostError,
    "unreachable": GatewayUnreachableError,
    "raised": RemoteError,
    "internal": InternalError,
}

_raised: dict[str, type[RemoteError]] = {}


def _class_of(name: str) -> type[RemoteError]:
    """`RemoteError` that is also the exception of that name, if Python defines it."""
    known = _raised.get(name)
    if known is None:
        known = RemoteError
        base = getattr(builtins, name, None)
        # Those of the system carry fields that a message does not fill.
        if isinstance(base, builtins.type) and issubclass(base, Exception) and not issubclass(base, OSError):
            try:
                known = builtins.type(name, (RemoteError, base), {"__module__": __name__, "__str__": RemoteError.__str__})
            except TypeError:
                pass
        _raised[name] = known
    return known


def from_failure(
    reason: str,
    message: str,
    exception: str | None,
    traceback: str | None,
    retry_after_ms: int | None,
) -> CallError:
    """The exception for what the protocol says of a failure."""
    if reason != "raised":
        error = _BY_REASON.get(reason, CallError)(message)
        if retry_after_ms is not None:
            error.retry_after = retry_after_ms / 1000
        return error
    raised = _class_of(exception or "Exception")(message)
    raised.type = exception or "Exception"
    raised.message = message
    raised.remote_traceback = traceback
    if raised.__class__ is RemoteError:
        raised.args = (f"{raised.type}: {message}" if message else raised.type,)
    if traceback:
        raised.add_note(f"Raised by the remote function:\n{traceback.rstrip()}")
    return raised
