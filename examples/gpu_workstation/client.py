"""The three ways to call, and a stream whose frames come back one by one."""

import asyncio

from easyremote import remote
from r3mes import NoHealthyNodesError


def load_training_data():
    return [(x, 3.0 * x) for x in range(1, 5)]


# Method 1: Decorator-based (recommended)
@remote(node_id="gpu-workstation-01")
def train_deep_learning_model(model_config, dataset):
    """This function runs remotely on the GPU workstation"""
    pass  # Implementation is on the remote node

# Method 2: Direct function creation
remote_trainer = remote("gpu-workstation-01", "train_deep_learning_model")

# Method 3: Dynamic discovery
@remote(capability="gpu_training")  # Finds any node with this capability
def train_model_anywhere(model_config, dataset):
    pass


async def main():
    # Usage - exactly like local functions!
    model_config = {"layers": 10, "learning_rate": 0.001}
    dataset = load_training_data()

    result = await train_deep_learning_model(model_config, dataset)
    print(f"Training completed: {result}")
    assert result == await remote_trainer(model_config, dataset) == {"weight": 3.0}
    assert (await train_model_anywhere(model_config, dataset))["weight"] == 3.0

    sent = []

    def camera():
        for number in range(3):
            sent.append(number)
            yield bytes([number] * 4)

    process_video_stream = remote("gpu-workstation-01", "process_video_stream", stream=True)
    frames = [frame async for frame in process_video_stream(camera())]
    assert sent == [0, 1, 2] and frames[2] == bytes([253] * 4), frames

    train_large_model = remote("rtx4090-machine", "train_large_model")
    assert (await train_large_model("transformer", dataset))["weight"] == 3.0
    too_large = remote("rtx4090-machine", "train_large_model", requirements={"gpu_memory": "48GB"})
    try:
        await too_large("transformer", dataset)
    except NoHealthyNodesError as error:
        print(f"refused: {error}")
    else:
        raise AssertionError("no node has 48 GB")


asyncio.run(main())
# Outside of an event loop the same stubs return their values.
assert train_deep_learning_model({"layers": 10, "learning_rate": 0.001}, load_training_data()) == {"weight": 3.0}
