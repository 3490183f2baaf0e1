"""A frontend. Its function has no price, so that `billing` is a label: calls are counted, and nothing is settled."""

import asyncio
from types import SimpleNamespace

from easyremote import Client, remote


# Frontend application
@remote(node_id="inference-01")
def serve_ai_api(model_version, user_input):
    pass

# Handle user requests
async def handle_user_query(user_input):
    ai_response = await serve_ai_api("v1.2", user_input)
    return {"response": ai_response, "model": "v1.2"}


async def main():
    answers = await asyncio.gather(*[handle_user_query("to be or not " * n) for n in range(20)])
    assert [answer["response"]["words"] for answer in answers] == [4 * n for n in range(20)], answers
    processes = {answer["response"]["process"] for answer in answers}
    (function,) = [f["info"] for f in Client().functions() if f["info"]["name"] == "serve_ai_api"]
    assert len(processes) <= function["max_concurrent"] and function["labels"] == {"billing": "per_request"}, function
    print(f"20 answers by {len(processes)} of at most {function['max_concurrent']} processes")


asyncio.run(main())
