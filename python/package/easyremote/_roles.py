"""Nodes and gateways with EasyRemote's words."""

from __future__ import annotations

import threading
from typing import Any, Callable, Iterable, Mapping

import r3mes
from r3mes._remote import running_loop


class ComputeNode(r3mes.ComputeNode):
    """As `r3mes.ComputeNode`.

    :param gateway_address: another word for `vps_address`.
    :param node_capabilities: words that the node can do, another way to give `capabilities`.
    :param log_level: changes nothing.
    """

    def __init__(
        self,
        gateway_address: str | None = None,
        node_id: str | None = None,
        node_capabilities: Iterable[Any] | None = None,
        *,
        vps_address: str | None = None,
        capabilities: Mapping[str, Any] | None = None,
        log_level: str | None = None,
        **options: Any,
    ) -> None:
        if gateway_address is not None and vps_address is not None:
            raise TypeError("gateway_address and vps_address are one: give one of them")
        if node_capabilities is not None and capabilities is not None:
            raise TypeError("node_capabilities and capabilities are one: give one of them")
        if isinstance(node_capabilities, Mapping):
            capabilities = node_capabilities
        elif node_capabilities is not None:
            capabilities = {"specialization": [str(word) for word in node_capabilities]}
        super().__init__(gateway_address or vps_address, node_id, capabilities, **options)

    def register(self, *functions: Any, **options: Any) -> Any:
        """As `r3mes.ComputeNode.register`.

        `timeout_seconds` is another word for `timeout`. `tags` and `version` become labels. What says how EasyRemote
        schedules (`load_balancing`, `priority`, `execution_mode`, `function_type`) or keeps results
        (`enable_caching`, `cache_ttl_seconds`) changes nothing.
        """
        for unused in ("load_balancing", "priority", "execution_mode", "function_type"):
            options.pop(unused, None)
        for unused in ("enable_caching", "cache_ttl_seconds"):
            options.pop(unused, None)
        if (seconds := options.pop("timeout_seconds", None)) is not None:
            options["timeout"] = seconds
        options |= {str(tag): str(tag) for tag in options.pop("tags", None) or ()}
        return super().register(*functions, **options)

    def serve(self, blocking: bool = True) -> threading.Thread | None:  # type: ignore[override]
        """Serves until Ctrl-C; with `blocking=False`, or from a running event loop, in the background."""
        if blocking and not _in_loop():
            super().serve()
            return None
        self.start()
        return _started(self.wait, "r3mes node")


class Server(r3mes.Server):
    """As `r3mes.Server`, but that `start` serves until Ctrl-C. EasyRemote's limits and switches change nothing."""

    def __init__(self, port: int = 8080, **options: Any) -> None:
        for unused in _SERVER_WORDS:
            options.pop(unused, None)
        super().__init__(port, **options)

    def start(self) -> Server:
        """Serves until Ctrl-C; from a running event loop, in the background."""
        if _in_loop():
            super().start()
        else:
            self.run()
        return self

    def run(self) -> None:
        """Serves until Ctrl-C."""
        super().start()
        self._serve()

    def start_background(self) -> threading.Thread:
        """Serves in the background."""
        super().start()
        assert self._handle is not None
        return _started(self._handle.wait, "r3mes gateway")

    def stop(self, grace: float = 0, timeout: float = 0) -> None:
        """Ends it and every connection, at once."""
        super().stop()

    def __enter__(self) -> Server:
        super().start()
        return self


_SERVER_WORDS = (
    "heartbeat_timeout_seconds",
    "max_queue_size",
    "max_workers",
    "max_total_active_streams",
    "max_streams_per_node",
    "stream_response_queue_size",
    "enable_monitoring",
    "enable_analytics",
    "cleanup_interval_seconds",
    "log_level",
)


def _in_loop() -> bool:
    return running_loop() is not None


def _started(waiting: Callable[[], object], name: str) -> threading.Thread:
    thread = threading.Thread(target=waiting, name=name, daemon=True)
    thread.start()
    return thread
