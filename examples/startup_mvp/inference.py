"""A rented node: as many processes as there are requests."""

import os

from easyremote import ComputeNode


def model_inference(model_version, user_input):
    """Counts words, the process that did it beside the answer."""
    return {"model": model_version, "words": len(user_input.split()), "process": os.getpid()}


# Startup rents dedicated inference node
inference_node = ComputeNode("startup-gateway:8080", "inference-01")

@inference_node.register(scaling="auto", billing="per_request")
def serve_ai_api(model_version, user_input):
    """Serve AI model with auto-scaling"""
    return model_inference(model_version, user_input)

inference_node.serve()
