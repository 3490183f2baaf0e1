"""A gateway in this process over HTTP: what programs without this package call, by the standard library alone."""

from __future__ import annotations

import http.server
import json
import queue
import threading
import urllib.error
import urllib.request
from email.message import Message
from typing import Any, Callable, Iterator

import pytest

import easyremote
from r3mes import ComputeNode, Server

#: Long enough for anything that should happen; only failures wait so long.
PATIENCE = 60.0

#: Meets the gateway directly, whatever the machine's settings say.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(url: str, body: Any = None, *, token: str | None = None, **headers: str) -> Any:
    """The answer to a GET, or to a POST of JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers)
    request.add_header("Content-Type", "application/json")
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    return _DIRECT.open(request, timeout=PATIENCE)


def refusal(url: str, body: Any = None, *, token: str | None = None) -> tuple[int, dict[str, Any], Message]:
    """What is said to a request that fails: status, problem and headers."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(url, body, token=token)
    with caught.value as answer:
        assert answer.headers["Content-Type"] == "application/problem+json"
        return answer.code, json.load(answer), answer.headers


@pytest.fixture
def lab(node: Callable[..., ComputeNode]) -> Iterator[ComputeNode]:
    made = node("lab")

    @made.register
    def add(a: int, b: int) -> int:
        """Adds two numbers."""
        return a + b

    @made.register
    def frames(count: int) -> Iterator[dict[str, int]]:
        for number in range(count):
            yield {"number": number}

    @made.register
    def fail(word: str) -> None:
        raise ValueError(word)

    with made:
        yield made


def test_a_call_takes_arguments_by_name_and_by_position(server: Server, lab: ComputeNode) -> None:
    with ask(f"{server.url}/api/lab.add", {"a": 2, "b": 40}) as answer:
        assert answer.headers["Content-Type"] == "application/json" and json.load(answer) == 42
    with ask(f"{server.url}/api/fn/add", [2, 40]) as answer:
        assert json.load(answer) == 42


def test_a_stream_comes_as_lines_and_as_events(server: Server, lab: ComputeNode) -> None:
    with ask(f"{server.url}/api/lab.frames", {"count": 3}) as answer:
        assert [json.loads(line) for line in answer] == [{"item": {"number": number}} for number in range(3)]
    with ask(f"{server.url}/api/lab.frames", [2], Accept="text/event-stream") as answer:
        lines = answer.read().decode().splitlines()
    items = [lines[at + 1] for at, line in enumerate(lines) if line == "event: item"]
    assert items == ['data: {"number":0}', 'data: {"number":1}']
    assert "event: end" in lines


def test_what_goes_wrong_is_a_problem(server: Server, lab: ComputeNode) -> None:
    status, problem, _ = refusal(f"{server.url}/api/lab.fail", ["no such thing"])
    assert (status, problem["reason"], problem["exception"]) == (500, "raised", "ValueError")
    assert problem["detail"] == "no such thing" and "in fail" in problem["traceback"]
    status, problem, _ = refusal(f"{server.url}/api/lab.nothing", [])
    assert (status, problem["reason"]) == (404, "not_found")


def test_functions_are_described_and_shown_to_people(server: Server, lab: ComputeNode) -> None:
    with ask(f"{server.url}/openapi.json") as answer:
        document = json.load(answer)
    described = document["paths"]["/api/lab.add"]["post"]
    assert described["summary"] == "Adds two numbers."
    for path, words in (("/", b"dashboard.js"), ("/docs/", b"swagger-ui")):
        with ask(server.url + path) as answer:
            assert words in answer.read()


def test_prometheus_sees_the_gateway_and_each_node_and_no_zero_for_what_nobody_knows(
    server: Server, lab: ComputeNode
) -> None:
    def figures() -> str:
        with ask(f"{server.url}/metrics") as answer:
            told: str = answer.read().decode()
        return told

    before = figures()
    assert "\nr3mes_functions_nodes 1\n" in before
    assert '\nr3mes_functions_node_uptime_seconds{node_id="lab"} ' in before
    assert "error_rate" not in before and "success_rate" not in before
    with ask(f"{server.url}/api/lab.add", [2, 40]) as answer:
        assert json.load(answer) == 42
    after = figures()
    assert "\nr3mes_functions_gateway_error_rate 0.0\n" in after
    assert '\nr3mes_functions_node_success_rate{node_id="lab"} 1.0\n' in after


def test_functions_are_tools_of_models(server: Server, lab: ComputeNode) -> None:
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "add", "arguments": {"a": 1, "b": 2}}}
    with ask(f"{server.url}/mcp", asked, Accept="application/json, text/event-stream") as answer:
        assert json.load(answer)["result"]["content"] == [{"type": "text", "text": "3"}]


def test_tokens_open_what_is_not_public() -> None:
    with Server(port=0, tokens={"secret": ("alice", ["team"])}) as server:
        node = ComputeNode(server.address, "lab", auth_token="secret")

        @node.register(access_level="team")
        def whose() -> str:
            return "the team's"

        with node:
            with ask(f"{server.url}/api/lab.whose", [], token="secret") as answer:
                assert json.load(answer) == "the team's"
            status, problem, headers = refusal(f"{server.url}/api/lab.whose", [], token="wrong")
            assert (status, problem["reason"]) == (401, "unauthenticated")
            assert headers["WWW-Authenticate"] == "Bearer"


def test_many_call_at_a_time_and_the_end_comes_in_good_order(lab: ComputeNode, server: Server) -> None:
    sums: list[int] = []

    def call(number: int) -> None:
        with ask(f"{server.url}/api/lab.add", [number, 1]) as answer:
            sums.append(json.load(answer))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(sums) == list(range(1, 17))
    url = server.url
    server.stop()
    with pytest.raises(urllib.error.URLError):
        ask(f"{url}/health")


def test_programs_for_easyremote_have_it_too() -> None:
    server = easyremote.Server(port=0)
    serving = server.start_background()
    with ask(f"{server.url}/health") as answer:
        assert json.load(answer)["status"] == "ok"
    server.stop()
    serving.join(PATIENCE)
    assert not serving.is_alive()


def test_hosts_that_a_server_lists_are_told_that_a_call_is_over_and_no_others() -> None:
    told: queue.Queue[dict[str, Any]] = queue.Queue()

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        here = f"127.0.0.1:{receiver.server_port}"
        wanted = {"Prefer": "respond-async", "Callback-URL": f"http://{here}/done"}
        with Server(port=0, tokens={"secret": "alice"}, webhook_hosts=[here]) as server:
            made = ComputeNode(server.address, "far")
            made.register(len)
            with made:
                with ask(f"{server.url}/api/fn/len", ["four"], token="secret", **wanted) as answer:
                    assert answer.status == 202
                over = told.get(timeout=PATIENCE)
        receiver.shutdown()
    assert (over["type"], over["data"]["result"]) == ("call.succeeded", 4)
    for hosts, why in (None, "must begin with https://"), ([], "sends no webhooks"), (["elsewhere"], "is none of them"):
        with Server(port=0, tokens={"secret": "alice"}, webhook_hosts=hosts) as server:
            with pytest.raises(urllib.error.HTTPError) as caught:
                ask(f"{server.url}/api/fn/len", ["four"], token="secret", **wanted)
            with caught.value as answer:
                assert answer.code == 400 and why in json.load(answer)["detail"]
    with pytest.raises(TypeError, match=r"give \['elsewhere'\]"):
        Server(webhook_hosts="elsewhere")


def test_pages_of_listed_origins_alone_may_call() -> None:
    page = {"Origin": "https://app.example.com", "Sec-Fetch-Site": "cross-site"}
    with Server(port=0, cors_origins=["https://app.example.com"]) as server:
        with pytest.raises(urllib.error.HTTPError) as caught:
            ask(f"{server.url}/api/fn/len", ["four"], **page)
        with caught.value as answer:
            assert (answer.code, answer.headers["Access-Control-Allow-Origin"]) == (404, "https://app.example.com")
    with Server(port=0) as server:
        with pytest.raises(urllib.error.HTTPError) as caught:
            ask(f"{server.url}/api/fn/len", ["four"], **page)
        with caught.value as answer:
            assert answer.code == 403 and "another origin" in json.load(answer)["detail"]
    with pytest.raises(ValueError, match="write https://HOST"):
        Server(port=0, cors_origins=["app.example.com"]).start()
    with pytest.raises(TypeError, match="list of origins"):
        Server(cors_origins="https://app.example.com")
