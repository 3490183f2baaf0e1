"""Uses functions as a language model's host does, with the Model Context Protocol's Python client.

Run: mcp_client.py URL TOKEN MODE, where MODE is "auto" (the newest protocol) or "legacy" (with a handshake).
"""

import asyncio
import sys

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

url, token, mode = sys.argv[1:]


def check(holds, what):
    if not holds:
        sys.exit(f"failed: {what}")
    print("ok", what)


def connect(token, at=url):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    http = httpx2.AsyncClient(headers=headers, timeout=60)
    return Client(streamable_http_client(at, http_client=http), mode=mode)


def text(result):
    return "".join(block.text for block in result.content)


async def listed(client):
    tools, cursor = {}, None
    while True:
        page = await client.list_tools(cursor=cursor)
        tools.update({tool.name: tool for tool in page.tools})
        cursor = page.next_cursor
        if cursor is None:
            return tools


async def as_alice():
    async with connect(token) as client:
        check(client.server_info.name == "r3mes", "the server says what it is")
        tools = await listed(client)
        check("add" in tools and "secret" in tools, "functions are tools")
        check(tools["add"].description == "Adds two numbers.", "with their descriptions")
        properties = tools["add"].input_schema["properties"]
        check(properties["a"] == {"type": "integer"}, "and parameters")
        check("one.twice" in tools and "two.twice" in tools, "nodes that differ have a tool each")

        result = await client.call_tool("add", {"a": 2, "b": 40})
        check(not result.is_error and text(result) == "42", "a call")
        result = await client.call_tool("echo", {"data": {"$bytes": "AAEC"}, "deep": [{"x": None}]})
        shown = {"data": {"$bytes": "AAEC"}, "deep": [{"x": None}]}
        check(result.structured_content == shown, "bytes and nested values")
        result = await client.call_tool("two.twice", {"text": "ab"})
        check(text(result) == "two: abab", "a call of one node")
        result = await client.call_tool("count", {"to": 3})
        check(text(result) == "[0,1,2]", "items come as a list")

        seen = []

        async def progress(done, total, message):
            seen.append((done, total, message))

        await client.call_tool("slow", {}, progress_callback=progress)
        check(seen == [(0.5, 1.0, "half")], "progress")

        result = await client.call_tool("fail", {})
        check(result.is_error and text(result) == "ValueError: no such thing", "an exception is told")
        result = await client.call_tool("secret", {})
        check(text(result) == "for alice", "a function for a group")
        check(tools["sold"].description == "Dear.\nA call costs 700 uremes.", "a price is told")
        result = await client.call_tool("sold", {})
        refused = result.is_error and "700 uremes" in text(result) and "r3mes/max_price" in text(result)
        check(refused, "nobody pays unasked")
        result = await client.call_tool("sold", {}, meta={"r3mes/max_price": 700})
        check(text(result) == "worth it", "a call says what it may cost")
        try:
            await client.call_tool("sold", {}, meta={"r3mes/max_price": "much"})
        except MCPError as error:
            check("whole number" in str(error), "and says it in numbers")
        else:
            check(False, "and says it in numbers")
        try:
            await client.call_tool("nothing", {})
        except MCPError as error:
            check("nothing" in str(error), "an unknown tool is refused by name")
        else:
            check(False, "an unknown tool is refused by name")
        try:
            await client.call_tool("forever", {}, read_timeout_seconds=0.5)
        except MCPError:
            check(True, "a call is given up")


async def as_a_payer():
    async with connect(token, f"{url}?max_price=700") as client:
        result = await client.call_tool("sold", {})
        check(text(result) == "worth it", "a host's settings say what calls may cost")
        result = await client.call_tool("sold", {}, meta={"r3mes/max_price": 699})
        check(result.is_error, "and a call may say less")


async def as_nobody():
    async with connect(None) as client:
        tools = await listed(client)
        check("add" in tools and "secret" not in tools, "without a token fewer tools are seen")
        result = await client.call_tool("secret", {})
        check(result.is_error and "secret" in text(result), "and may be called")


asyncio.run(as_alice())
asyncio.run(as_a_payer())
asyncio.run(as_nobody())
