"""One of two nodes that render, with 8GB of GPU memory."""

from easyremote import ComputeNode

node = ComputeNode(node_id="render-small", capabilities={"gpu": {"memory": "8GB"}, "specialization": ["rendering"]})

@node.register
def render(frame):
    return {"frame": frame, "node": node.node_id}

node.serve()
