"""Lists of inputs over several nodes: order, shares, and what is told when a part fails."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any, Callable

import pytest

from r3mes import ComputeNode, PartialFailureError, _split, remote

Make = Callable[..., ComputeNode]


@pytest.fixture
def together(node: Make) -> threading.Barrier:
    """Two nodes that share lists; each call of one waits for a call of the other."""
    barrier = threading.Barrier(2)
    for name in ("one", "two"):
        made = node(name)

        def doubled(inputs: list[int], name: str = name) -> list[Any]:
            barrier.wait(60)
            return [[2 * value, name] for value in inputs]

        def checked(inputs: list[int], limit: int) -> list[int]:
            if max(inputs) >= limit:
                raise ValueError(f"{max(inputs)} is too large")
            return inputs

        made.register(splittable=True)(doubled)
        made.register(splittable=True)(checked)
        made.register(name="short", splittable=True)(lambda inputs: inputs[:1])
        made.register(name="whole")(lambda inputs: [len(inputs)])
        made.start()
    return barrier


def auto(name: str) -> Any:
    return remote(function=name, optimization="auto")(lambda inputs: None)


def test_a_list_is_spread_over_nodes_and_keeps_its_order(together: threading.Barrier) -> None:
    inputs = list(range(1000))
    for results in (auto("doubled")(inputs), asyncio.run(_awaited(auto("doubled"), inputs))):
        assert [value for value, _ in results] == [2 * value for value in inputs]
        assert {name for _, name in results} == {"one", "two"}
    together.abort()


async def _awaited(function: Any, *args: Any) -> Any:
    return await function(*args)


def test_parts_that_fail_are_told_with_the_results_of_the_others(together: threading.Barrier) -> None:
    with pytest.raises(PartialFailureError, match="25 of 100 inputs .* from 75 to 99 failed .* 99 is too large") as told:
        auto("checked")(list(range(100)), 99)
    assert told.value.results == [*range(75), *[None] * 25]
    ((inputs, error),) = told.value.failures
    assert inputs == range(75, 100) and isinstance(error, ValueError)
    with pytest.raises(PartialFailureError, match="8 of 8 .* as long as its first argument"):
        auto("short")(list(range(8)))


def test_parts_go_where_they_are_expected_to_end_soonest_unless_a_strategy_is_named() -> None:
    assert auto("digest")._given[0]["strategy"] == "soonest"
    named = remote(function="digest", optimization="auto", strategy="random")(lambda inputs: None)
    assert named._given[0]["strategy"] == "random"
    assert "strategy" not in remote(function="digest")(lambda inputs: None)._given[0]


def test_what_may_not_be_split_goes_whole(together: threading.Barrier, node: Make) -> None:
    assert auto("whole")([1, 2, 3]) == [3] and auto("checked")([1], 5) == [1]
    assert remote(function="short")(lambda inputs: None)([1, 2, 3]) == [1]
    with pytest.raises(ValueError, match="cannot be splittable"):
        node("three").register(splittable=True)(os.getpid)


def test_parts_are_nearly_equal_and_never_empty() -> None:
    assert [list(part) for part in _split.parts_of("abcdefg", 2)] == [["a"], ["b", "c"], ["d", "e"], ["f", "g"]]
    assert [len(part) for part in _split.parts_of([1, 2], 100)] == [1, 1]
    assert len(_split.parts_of(range(10_000), 10_000)) == _split.MOST_PARTS
