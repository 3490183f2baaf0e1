"""What a gateway makes of registered functions: endpoints, documentation, and a registry, over plain HTTP."""

import json
import urllib.error
import urllib.request

from easyremote import Client

base = f"http://{Client().gateway}"


def ask(path, body=None):
    request = urllib.request.Request(base + path, headers={"content-type": "application/json"})
    if body is not None:
        request.data = json.dumps(body).encode()
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


assert ask("/api/api-node.mean", {"values": [1, 2, 6]}) == 3.0
assert ask("/api/fn/mean", [[1, 2], 0]) == 2.0

(entry,) = [f for f in ask("/api/functions")["functions"] if f["node_id"] == "api-node"]
assert entry["function_name"] == "mean" and entry["health_status"] == "healthy", entry
operation = ask("/openapi.json")["paths"]["/api/api-node.mean"]["post"]
assert operation["summary"] == "Averages numbers." and operation["tags"] == ["api-node"], operation

try:
    ask("/api/api-node.mean", {"values": []})
except urllib.error.HTTPError as error:
    problem = json.load(error)
    assert problem["exception"] == "ZeroDivisionError", problem
    print(f"{error.code}: {problem['exception']}")
else:
    raise AssertionError("the mean of nothing was told")
