"""Where EasyRemote has its node."""

from ..._roles import ComputeNode

DistributedComputeNode = ComputeNode

__all__ = ["ComputeNode", "DistributedComputeNode"]
