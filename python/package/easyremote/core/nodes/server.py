"""Where EasyRemote has its gateway."""

from ..._roles import Server

DistributedComputingGateway = Server

__all__ = ["DistributedComputingGateway", "Server"]
