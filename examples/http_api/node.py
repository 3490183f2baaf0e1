"""A function whose signature becomes a documented endpoint."""

from easyremote import ComputeNode

node = ComputeNode(node_id="api-node", capabilities={"specialization": ["analytics"]})

@node.register
def mean(values: list[float], digits: int = 2) -> float:
    """Averages numbers."""
    return round(sum(values) / len(values), digits)

node.serve()
