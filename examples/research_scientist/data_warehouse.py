"""Has the data."""

from easyremote import ComputeNode

node = ComputeNode(node_id="data-warehouse")

@node.register
def query_large_dataset(query):
    return [x * x for x in range(query["rows"])]

node.serve()
