"""One of two nodes that render, with 24GB of GPU memory."""

from easyremote import ComputeNode

node = ComputeNode(node_id="render-large", capabilities={"gpu": {"memory": "24GB"}, "specialization": ["rendering"]})

@node.register
def render(frame):
    return {"frame": frame, "node": node.node_id}

node.serve()
