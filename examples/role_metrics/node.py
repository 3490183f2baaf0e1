"""A node whose figures are looked at."""

from easyremote import ComputeNode

node = ComputeNode(node_id="measured", capabilities={"specialization": ["statistics"]})

@node.register
def halve(number):
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2

node.serve()
