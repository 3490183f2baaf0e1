"""Where EasyRemote has its roles."""

from ..._calls import Client
from ..._roles import ComputeNode, Server

__all__ = ["Client", "ComputeNode", "Server"]
