"""One of two nodes that offer the same function."""

from easyremote import ComputeNode

node = ComputeNode(node_id="two", capabilities={"worker": "two"})

@node.register
def whoami(number: int) -> str:
    """Names the node that answers."""
    return f"{node.node_id} {number}"

node.serve()
