"""Where EasyRemote has `remote`."""

from ._calls import remote

__all__ = ["remote"]
