"""Asks much at a time, so that the gateway starts workers; and the same again, which it answers itself."""

import asyncio

from easyremote import Client, remote


@remote(node_id="front")
def ask(question):
    pass


async def main():
    answers = await asyncio.gather(*[ask("word " * count) for count in range(8)])
    assert [answer["answer"] for answer in answers] == list(range(8)), answers
    again = [await ask("how many words are these") for _ in range(3)]
    assert [answer["answer"] for answer in again] == [5, 5, 5], again
    assert [answer["kept"] for answer in again] == [False, False, True], again


asyncio.run(main())
workers = [node["id"] for node in Client().nodes() if node["id"] != "front"]
assert 2 <= len(workers) <= 4, workers
print(f"{len(workers)} workers were started, and the third answer was kept from the second")
