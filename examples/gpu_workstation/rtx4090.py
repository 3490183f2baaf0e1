"""A node that says what it can do, and a function that needs a part of it."""

from easyremote import ComputeNode


def train_with_cuda(model_architecture, training_data):
    """Fits y = weight * x in closed form."""
    xy = sum(x * y for x, y in training_data)
    return {"architecture": model_architecture, "weight": xy / sum(x * x for x, _ in training_data)}


gpu_node = ComputeNode(
    vps_address="gateway.com:8080",
    node_id="rtx4090-machine",
    capabilities={
        "gpu": {"model": "RTX 4090", "memory": "24GB"},
        "specialization": ["ai_training", "rendering", "simulation"]
    }
)

@gpu_node.register(resource_requirements={"gpu_memory": "16GB"})
def train_large_model(model_architecture, training_data):
    """Train large AI models requiring significant GPU memory"""
    return train_with_cuda(model_architecture, training_data)

@gpu_node.register
def train_model_anywhere(model_config, dataset):
    return train_with_cuda(f"{model_config['layers']} layers", dataset)

gpu_node.serve()
