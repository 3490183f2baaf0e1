"""One of two nodes that share a list."""

from easyremote import ComputeNode

node = ComputeNode(node_id="splitting-two")

@node.register(splittable=True)
def smart_function(data):
    """Squares numbers; each entry says who did it."""
    return [{"value": value * value, "node": node.node_id} for value in data]

node.serve()
