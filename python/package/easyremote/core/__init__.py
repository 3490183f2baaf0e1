"""Where EasyRemote has its roles."""

from .nodes import Client, ComputeNode, Server

__all__ = ["Client", "ComputeNode", "Server"]
