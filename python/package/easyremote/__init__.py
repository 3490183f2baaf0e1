"""The package `r3mes` under the name that programs for EasyRemote import."""

from r3mes import *  # noqa: F403
from r3mes import __all__, __version__
