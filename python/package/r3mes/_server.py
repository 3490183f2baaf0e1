"""The gateway, in this process."""

from __future__ import annotations

import os
from typing import Iterable, Mapping

from . import _gateway, _native


class Server:
    """A gateway: nodes and clients connect to it, and programs call by HTTP on the same port.

    What there is over HTTP is what `r3mes functions serve` has: docs/functions.md.

    :param port: where it listens; 0 takes a free one, which `address` tells.
    :param host: on which address of this machine. Other machines reach it only where it is not a loopback one.
    :param tokens: tokens that are known, each with a user's name, or a user's name and groups.
    :param token_required: whether nobody may come without a token.
    :param webhook_hosts: hosts, each `HOST` or `HOST:PORT`, that alone may be told that an asynchronous call is over,
        over http too; nobody if there are none. If not given, all may be that are on the public Internet, over https.
    :param cors_origins: origins, each `https://HOST` or `http://HOST:PORT`, whose pages may call from a browser; `["*"]` for
        all. Pages of the gateway itself always may.
    :param certificate: the file of a certificate (PEM) with which TLS is spoken. :param key: that of its key.
    """

    def __init__(
        self,
        port: int = _gateway.DEFAULT_PORT,
        host: str = "127.0.0.1",
        *,
        tokens: Mapping[str, str | tuple[str, Iterable[str]]] | None = None,
        token_required: bool = False,
        webhook_hosts: Iterable[str] | None = None,
        cors_origins: Iterable[str] = (),
        certificate: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
    ) -> None:
        if (certificate is None) != (key is None):
            raise ValueError("TLS needs a certificate and its key: give both, or neither")
        self._tls = None if certificate is None or key is None else (os.fspath(certificate), os.fspath(key))
        self._address = f"{host}:{port}"
        self._tokens = []
        for token, user in (tokens or {}).items():
            name, groups = (user, ()) if isinstance(user, str) else user
            self._tokens.append((token, name, list(groups)))
        self._token_required = token_required
        if isinstance(webhook_hosts, str):
            raise TypeError(f"webhook_hosts is a list of hosts: give [{webhook_hosts!r}]")
        self._webhook_hosts = None if webhook_hosts is None else list(webhook_hosts)
        if isinstance(cors_origins, str):
            raise TypeError(f"cors_origins is a list of origins: give [{cors_origins!r}]")
        self._cors_origins = list(cors_origins)
        self._handle: _native.ServerHandle | None = None

    @property
    def address(self) -> str:
        """HOST:PORT where it listens, or tls://HOST:PORT."""
        address = self._handle.address() if self._handle else self._address
        return f"tls://{address}" if self._tls else address

    @property
    def url(self) -> str:
        """http://HOST:PORT of its page, or https://HOST:PORT; calls go to /api, tools to /mcp, /docs tries functions."""
        address = self.address.removeprefix("tls://")
        return f"https://{address}" if self._tls else f"http://{address}"

    def start(self) -> Server:
        """Serves in the background."""
        if self._handle is None:
            self._handle = _native.ServerHandle(
                self._address,
                self._tokens,
                self._token_required,
                self._tls,
                self._webhook_hosts,
                self._cors_origins,
            )
            _gateway.running_servers.append(self)
        return self

    def run(self) -> None:
        """Serves until Ctrl-C."""
        self.start()
        self._serve()

    def _serve(self) -> None:
        assert self._handle is not None
        print(f"gateway at {self.address}", flush=True)
        try:
            self._handle.wait()
        except KeyboardInterrupt:
            pass
        finally:
            self.stop()

    def stop(self) -> None:
        """Ends it and every connection."""
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        _gateway.running_servers.remove(self)
        handle.stop()
        handle.wait()

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
