"""A GPU that a team shares: only its members get in."""

import itertools
from dataclasses import dataclass

from easyremote import ComputeNode

node = ComputeNode(node_id="shared-gpu-01")
numbers = itertools.count(1)


@dataclass
class Model:
    id: str
    base: str
    examples: int


@node.register(access_level="team")
def fine_tune_model(base_model, custom_data):
    return Model(f"model-{next(numbers)}", base_model, len(custom_data))

node.serve()
