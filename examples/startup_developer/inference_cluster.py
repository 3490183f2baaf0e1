"""Answers with a model."""

from easyremote import ComputeNode

node = ComputeNode(node_id="inference-cluster")

@node.register
def serve_model_inference(model_id, input_data):
    return {"model": model_id, "answers": [word.upper() for word in input_data]}

node.serve()
