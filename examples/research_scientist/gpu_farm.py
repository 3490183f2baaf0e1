"""Trains."""

from easyremote import ComputeNode

node = ComputeNode(node_id="gpu-farm")

@node.register
def train_model(model_config):
    """Fits a line through the training data."""
    ys = model_config["training_data"]
    middle_x, middle_y = (len(ys) - 1) / 2, sum(ys) / len(ys)
    slope = sum((x - middle_x) * (y - middle_y) for x, y in enumerate(ys))
    slope /= sum((x - middle_x) ** 2 for x in range(len(ys)))
    return {"architecture": model_config["architecture"], "slope": slope}

node.serve()
