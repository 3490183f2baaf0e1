"""Calls through a gateway: each form of `remote`, each kind of function."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import threading
from pathlib import Path
from typing import Any, AsyncIterator, Callable, Iterator

import numpy
import pytest

import r3mes
from r3mes import Client, ComputeNode, ExecutionContext, Server, _native, remote

Make = Callable[..., ComputeNode]


@dataclasses.dataclass
class Config:
    layers: int
    rate: float = 0.5


@pytest.fixture
def started(node: Make) -> ComputeNode:
    made = node("gpu-1", capabilities={"gpu": {"memory": "24GB"}, "specialization": ["ai_training"]})

    @made.register
    def train(config: Config, data: list[int]) -> Config:
        assert isinstance(config, Config)
        return Config(config.layers + sum(data))

    @made.register(async_func=True)
    async def double(x: int) -> int:
        await asyncio.sleep(0)
        return 2 * x

    @made.register
    def echo(*args: Any, **kwargs: Any) -> Any:
        return [list(args), kwargs]

    @made.register(stream=True)
    def frames(video: Iterator[Any]) -> Iterator[Any]:
        for frame in video:
            yield frame

    @made.register
    async def ticks(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    @made.register
    async def total(items: AsyncIterator[int]) -> int:
        return sum([item async for item in items])

    @made.register
    def fail(words: str) -> None:
        raise LookupError(words)

    return made.start()


def test_a_stub_returns_the_value_and_can_be_awaited(started: ComputeNode) -> None:
    @remote(node_id="gpu-1")
    def train(config: Config, data: list[int]) -> Config: ...

    assert train(Config(3), [1, 2]) == Config(6)

    async def main() -> None:
        assert await train(Config(3), data=[1]) == Config(4)
        many = await asyncio.gather(*[train(Config(i), []) for i in range(200)])
        assert [config.layers for config in many] == list(range(200))

    asyncio.run(main())


def test_every_form_of_remote(started: ComputeNode) -> None:
    assert remote("gpu-1", "double")(4) == 8

    @remote(capability="gpu_training")
    def double(x: int) -> int: ...

    @remote
    def echo(*args: Any, **kwargs: Any) -> Any: ...

    @remote(node_id="gpu-1", function="double")
    async def doubled(x: int) -> int: ...

    assert double(5) == 10
    assert echo(1, None, a=None) == [[1, None], {"a": None}]
    assert asyncio.run(doubled(6)) == 12
    client = Client()
    assert client.execute("gpu-1.double", 7) == 14 and client.execute("double", x=8) == 16
    assert [node["id"] for node in client.nodes()] == ["gpu-1"]


def test_nobody_who_can_is_an_error(started: ComputeNode) -> None:
    @remote(capability="quantum")
    def double(x: int) -> int: ...

    with pytest.raises(r3mes.FunctionNotFoundError, match="quantum"):
        double(1)
    with pytest.raises(r3mes.FunctionNotFoundError, match="missing"):
        remote("gpu-1", "missing")()


def test_streams_both_ways_are_incremental(started: ComputeNode) -> None:
    frames = remote("gpu-1", "frames", stream=True)
    sent: list[int] = []
    asked = threading.Semaphore(0)

    def video() -> Iterator[int]:
        for i in range(3):
            sent.append(i)
            yield i
            assert asked.acquire(timeout=30)

    stream = frames(video())
    for expected in range(3):
        assert next(stream) == expected and sent == list(range(expected + 1))
        asked.release()
    assert next(stream, "end") == "end"
    assert list(frames(iter([None, 1, None]))) == [None, 1, None]


def test_asynchronous_streams_both_ways(started: ComputeNode) -> None:
    async def numbers() -> AsyncIterator[int]:
        for i in range(5000):
            yield i

    @remote(node_id="gpu-1")
    async def ticks(n: int) -> AsyncIterator[int]:
        yield 0

    async def main() -> None:
        assert [i async for i in ticks(10_000)] == list(range(10_000))
        assert await remote("gpu-1", "total")(numbers()) == sum(range(5000))
        echoed = remote("gpu-1", "frames", stream=True)(numbers())
        assert [i async for i in echoed] == list(range(5000))

    asyncio.run(main())
    assert remote("gpu-1", "total")(iter([1, 2, 3])) == 6


def test_an_argument_that_fails_fails_the_call(started: ComputeNode) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError("here")

    stream = remote("gpu-1", "frames", stream=True)(broken())
    with pytest.raises(ZeroDivisionError, match="here"):
        list(stream)


def test_exceptions_cross_with_type_message_and_traceback(started: ComputeNode) -> None:
    with pytest.raises(LookupError, match="gone") as raised:
        remote("gpu-1", "fail")("gone")
    error = raised.value
    assert isinstance(error, r3mes.RemoteError) and error.type == "LookupError"
    assert error.remote_traceback is not None and "raise LookupError(words)" in error.remote_traceback
    assert "_functions.py" not in error.remote_traceback and error.__notes__
    with pytest.raises(TypeError, match="unexpected keyword"):
        remote("gpu-1", "double")(y=1)


def test_a_call_of_a_stream_as_a_value_says_what_to_do(started: ComputeNode) -> None:
    with pytest.raises(r3mes.errors.InvalidCallError, match="stream=True"):
        remote("gpu-1", "ticks")(3)


def test_large_arrays_cross_without_copies(node: Make) -> None:
    made = node()

    @made.register
    def add_one(array: numpy.ndarray) -> Any:
        array += 1
        return array

    made.start()
    array = numpy.zeros(2_000_000)
    before = _native.copies()
    arrived = remote("node", "add_one")(array)
    assert (arrived == 1).all() and not array.any()
    assert _native.copies() == before


def test_cancelling_reaches_coroutines_and_threads(node: Make) -> None:
    made = node()
    running, ended, told = threading.Semaphore(0), threading.Event(), threading.Event()

    @made.register
    async def forever() -> None:
        running.release()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    @made.register
    def busy(context: ExecutionContext) -> None:
        running.release()
        while not context.cancelled:
            pass
        told.set()

    made.start()

    async def main() -> None:
        for name in ("forever", "busy"):
            task = asyncio.ensure_future(remote("node", name)())
            await asyncio.to_thread(running.acquire)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert ended.wait(30) and told.wait(30)

    @remote(node_id="node", function="forever", timeout=0.05)
    def late() -> None: ...

    with pytest.raises(r3mes.CallTimeoutError):
        late()


def test_a_stream_that_is_closed_ends_its_generator(node: Make) -> None:
    made = node()
    closed = threading.Event()

    @made.register
    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    made.start()
    with remote("node", "endless", stream=True)() as stream:
        assert next(stream) == 1
    assert closed.wait(30)


def test_access_and_quotas() -> None:
    tokens: dict[str, Any] = {"team-token": ("alice", ["team"]), "other-token": "bob"}
    with Server(0, tokens=tokens) as server:
        made = ComputeNode(server.address, "shared")

        @made.register(access_level="team", quota_per_user="2_calls_daily")
        def mine(context: ExecutionContext) -> list[Any]:
            return [context.user, context.groups]

        made.start()

        def call(**auth: str) -> Any:
            return remote(node_id="shared", function="mine", gateway=server.address, **auth)(lambda: None)()

        assert call(auth_token="team-token") == ["alice", ["team"]]
        with pytest.raises(r3mes.AccessDeniedError):
            call(auth_token="other-token")
        with pytest.raises(r3mes.CallError):
            call()
        assert call(auth_token="team-token") == ["alice", ["team"]]
        with pytest.raises(r3mes.QuotaExceededError) as refused:
            call(auth_token="team-token")
        assert refused.value.retry_after is not None and refused.value.retry_after > 0
        with pytest.raises(r3mes.AuthenticationError):
            call(auth_token="unknown")
        with pytest.raises(r3mes.AuthenticationError, match="no token is stored as 'mit'"):
            call(auth="mit")


def test_names_of_gateways_and_tokens_are_looked_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Path(os.environ["XDG_CONFIG_HOME"]) / "r3mes"
    (config / "tokens").mkdir(parents=True)
    (config / "functions.toml").write_text(f'[gateways]\nteam-gateway = "{server.address}"\n')
    assert Client("team-gateway:8080").gateway == Client("team-gateway").gateway == server.address
    assert Client("other-gateway").gateway == "other-gateway:8080"
    with Server(0, tokens={"a-long-token": "alice"}) as asked:
        made = ComputeNode(asked.address, "who", auth_token="a-long-token")
        made.register(_user)
        with made:
            call = {"node_id": "who", "function": "_user", "gateway": asked.address}
            with pytest.raises(r3mes.AuthenticationError):
                remote(**call, auth_token="team_token")(_user)()
            (config / "tokens/team_token").write_text("a-long-token\n")
            assert remote(**call, auth_token="team_token")(_user)() == "alice"
            monkeypatch.setenv("R3MES_TOKEN_TEAM_TOKEN", "not-that-one")
            with pytest.raises(r3mes.AuthenticationError):
                remote(**call, auth_token="team_token")(_user)()


def _user(context: ExecutionContext) -> str:
    return context.user


def test_a_label_is_a_capability(node: Make) -> None:
    made = node()
    made.register(quantum_backend="ibm_q")(_user)
    made.start()
    for asked in ("ibm_q", "quantum_backend"):
        assert remote(capability=asked, function="_user")(_user)() == ""
    with pytest.raises(r3mes.FunctionNotFoundError, match="ion_trap"):
        remote(capability="ion_trap", function="_user")(_user)()


def test_a_missing_gateway_is_said_with_all_the_ways_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EASYREMOTE_GATEWAY", "127.0.0.1:1")
    with pytest.raises(r3mes.GatewayUnreachableError) as refused:
        remote("node", "f")()
    for way in ("argument", "R3MES_GATEWAY", "functions.toml", "Server", "localhost:8080"):
        assert way in str(refused.value)


def test_what_is_registered_is_described(node: Make) -> None:
    made = node()

    @made.register(resource_requirements={"memory": "1MB"}, pipeline="automated", timeout=1.5)
    def plan(config: Config, tags: list[str], limit: int | None = None) -> dict[str, float]:
        """Plans."""
        return {}

    with pytest.raises(TypeError, match="no option 'colour'"):
        made.register(colour=3)(lambda: None)
    with pytest.raises(ValueError, match="contradicts"):
        made.register(auth_required=True, access_level="public")(lambda: None)
    made.start()
    (function,) = Client().functions()
    info = function["info"]
    assert info["description"] == "Plans." and info["labels"] == {"pipeline": "automated"}
    assert info["timeout_ms"] == 1500
    assert info["parameters"]["required"] == ["config", "tags"]
    assert info["parameters"]["properties"]["config"]["properties"]["rate"] == {"type": "number"}
    assert info["parameters"]["properties"]["limit"]["default"] is None
    assert info["returns"] == {"type": "object", "additionalProperties": {"type": "number"}}


def test_a_twin_of_a_node_is_told_why_it_may_not_come(node: Make) -> None:
    first, twin = node("same"), node("same")
    first.start()
    with pytest.raises(RuntimeError, match="connected already"):
        twin.start()


def test_a_price_is_refused_by_a_gateway_without_a_ledger_which_says_that_billing_is_off(node: Make) -> None:
    made = node("dear")

    @made.register(billing="per_request", price=700, payee="remes1r5v5srda7xfth3hn2s26txvrcrntldjuy5u8da")
    def render() -> None: ...

    with pytest.raises(RuntimeError, match="render has a price.*billing is off"):
        made.start()


def test_a_price_without_a_payee_is_an_error(node: Make) -> None:
    with pytest.raises(ValueError, match="needs a payee"):
        node("dear").register(lambda: None, price=700)


def test_a_result_that_was_kept_is_given_to_who_takes_one_that_old(node: Make) -> None:
    made, runs = node(), []

    @made.register(cacheable=True)
    def square(x: int) -> int:
        runs.append(x)
        return x * x

    made.start()
    for _ in range(2):
        assert remote(function="square", max_age=3600)(square)(7) == 49
    assert runs == [7]
    assert remote(function="square")(square)(7) == 49
    assert remote(function="square", max_age=3600)(square)(8) == 64
    assert runs == [7, 7, 8]
    with pytest.raises(ValueError, match="cannot be cacheable"):
        made.register(cacheable=True)(ticking)
    with pytest.raises(ValueError, match="cannot be cacheable"):
        made.register(cacheable=True, price=1, payee="remes1")(square)
    for odd in (-1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"max_age must be 0 to .* seconds, not {odd}"):
            remote(function="square", max_age=odd)(square)
        with pytest.raises(ValueError, match="timeout must be more than 0"):
            remote(function="square", timeout=odd)(square)


def ticking() -> Iterator[int]:
    yield 1
