"""Calls whose list of inputs is spread over nodes: `optimization="auto"` of functions that are `splittable`."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Awaitable, Callable, Sequence

from .errors import CallError, PartialFailureError

#: Parts for each place that a node has for the function, so that a slow node takes fewer.
PARTS_FOR_A_PLACE = 2
#: Parts of a call at most.
MOST_PARTS = 256


def parts_of(inputs: Sequence[Any], places: int) -> list[Sequence[Any]]:
    """The inputs in parts of nearly the same length, in order."""
    count = max(1, min(len(inputs), places * PARTS_FOR_A_PLACE, MOST_PARTS))
    ends = [len(inputs) * part // count for part in range(count + 1)]
    return [inputs[begin:end] for begin, end in zip(ends, ends[1:])]


def places_for(functions: list[dict[str, Any]], name: str, node_id: str | None) -> int:
    """How many calls of a splittable function run at a time, of all nodes; 0 if it may not be split."""
    offers = [f["info"] for f in functions if f["info"]["name"] == name and node_id in (None, f["node"])]
    if not offers or not all(info.get("splittable") for info in offers):
        return 0
    return sum(int(info["max_concurrent"]) for info in offers)


def call_parts(call: Callable[[Sequence[Any]], Any], parts: list[Sequence[Any]], at_a_time: int) -> list[Any]:
    """Calls with each part from threads; joins the results."""
    with ThreadPoolExecutor(min(len(parts), at_a_time), thread_name_prefix="r3mes part") as threads:
        begun = [threads.submit(call, part) for part in parts]
        return _join(parts, [_outcome(future.exception(), future) for future in begun])


async def await_parts(call: Callable[[Sequence[Any]], Awaitable[Any]], parts: list[Sequence[Any]]) -> list[Any]:
    """Calls with each part on the event loop; joins the results."""
    return _join(parts, await asyncio.gather(*map(call, parts), return_exceptions=True))


def _outcome(error: BaseException | None, future: Any) -> Any:
    return future.result() if error is None else error


def _join(parts: list[Sequence[Any]], outcomes: Sequence[Any]) -> list[Any]:
    """One list of all results, or an error that has those that came, and says which inputs failed and why."""
    results: list[Any] = []
    failures: list[tuple[range, CallError]] = []
    for part, outcome in zip(parts, outcomes):
        inputs = range(len(results), len(results) + len(part))
        if isinstance(outcome, BaseException) and not isinstance(outcome, CallError):
            raise outcome
        if not isinstance(outcome, CallError):
            if isinstance(outcome, list) and len(outcome) == len(part):
                results.extend(outcome)
                continue
            outcome = CallError(f"a splittable function returns a list as long as its first argument, not {outcome!r:.80}")
        failures.append((inputs, outcome))
        results.extend([None] * len(part))
    if not failures:
        return results
    raise PartialFailureError(results, failures)
