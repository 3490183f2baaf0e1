"""Alice and Bob share a GPU. Quotas go by token: whoever names another `user_id` uses up a quota of their own."""

import asyncio

from easyremote import remote
from r3mes import QuotaExceededError


# Team members use shared resource
@remote(node_id="team-gpu-01")
def train_team_model(user_id, model_config, dataset):
    pass


async def main():
    alice_config, alice_data = {"steps": 20_000}, [1, 2, 3]
    bob_config, bob_data = {"steps": 20_000}, [4, 5, 6]

    # Alice trains her model
    alice_result = train_team_model("alice", alice_config, alice_data)

    # Bob trains his model (queued if Alice is using GPU)
    bob_result = train_team_model("bob", bob_config, bob_data)

    alice_result, bob_result = await asyncio.gather(alice_result, bob_result)
    first, second = sorted([alice_result, bob_result], key=lambda result: result["began"])
    assert first["ended"] <= second["began"], "two trained at a time"
    assert (alice_result["user"], bob_result["user"]) == ("alice", "bob")

    as_alice = remote("team-gpu-01", "render_preview", auth="alice")
    as_bob = remote("team-gpu-01", "render_preview", auth="bob")
    assert [await as_alice(3), await as_alice(4)] == [9, 16]
    try:
        await as_alice(5)
    except QuotaExceededError as error:
        print(f"alice: {error}")
        assert error.retry_after > 0
    else:
        raise AssertionError("alice got a third call")
    assert await as_bob(5) == 25


asyncio.run(main())
