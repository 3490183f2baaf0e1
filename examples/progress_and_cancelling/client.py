"""Watches a call, and gives one up."""

import asyncio

from easyremote import remote
from r3mes import CallTimeoutError

told = []


@remote(node_id="long-work", progress=told.append)
def train(steps: int) -> str: ...


assert train(5) == "trained for 5 steps"
assert told and told[0].done == 0.2 and told[0].note == "step 1", told


async def main():
    running = asyncio.Event()
    call = remote("long-work", "hang").with_progress(lambda progress: running.set())()
    await running.wait()
    call.cancel()
    try:
        await call
    except asyncio.CancelledError:
        print(f"{told[0].note} was seen, and a call given up")
    else:
        raise AssertionError("a call that was cancelled returned")


asyncio.run(main())
try:
    remote("long-work", "hang", timeout=0.3)()
except CallTimeoutError as error:
    print(f"given up too: {error}")
else:
    raise AssertionError("a call that hangs returned")
