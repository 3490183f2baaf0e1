"""Recommends."""

from easyremote import ComputeNode

node = ComputeNode(node_id="recommendation-engine")

@node.register
def get_recommendations(user_id):
    return [f"item {(user_id * step) % 11}" for step in (3, 5)]

node.serve()
