"""A GPU workstation shares its power: one function that returns, one that streams."""

from easyremote import ComputeNode


def train_model_on_gpu(model_config, dataset):
    """Fits y = weight * x by gradient descent."""
    weight = 0.0
    for _ in range(500 * model_config["layers"]):
        slope = sum((weight * x - y) * x for x, y in dataset) / len(dataset)
        weight -= model_config["learning_rate"] * slope
    return {"weight": round(weight, 3)}


def gpu_process_frame(frame):
    return bytes(255 - pixel for pixel in frame)


# GPU workstation sharing its power
node = ComputeNode(
    vps_address="gateway.example.com:8080",
    node_id="gpu-workstation-01"
)

@node.register
def train_deep_learning_model(model_config, dataset):
    """Train a model using local GPU"""
    # This runs on the ComputeNode's hardware
    return train_model_on_gpu(model_config, dataset)

@node.register(stream=True)
def process_video_stream(video_data):
    """Process video frames in real-time"""
    for frame in video_data:
        processed_frame = gpu_process_frame(frame)
        yield processed_frame

node.serve()  # Start serving functions
