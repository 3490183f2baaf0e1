"""Which gateway is meant, as whom to go there, and the connections that stand."""

from __future__ import annotations

import os
import re
import threading
from typing import TYPE_CHECKING, Any

from . import _native
from .errors import AuthenticationError, GatewayUnreachableError, from_failure

if TYPE_CHECKING:
    from pathlib import Path
    from urllib.error import HTTPError

    from ._server import Server
    from .errors import CallError

DEFAULT_PORT = 8080
#: Seconds that a gateway may take to answer over HTTP what it knows at once.
HTTP_TIMEOUT_S = 30

#: Servers that run in this process, the newest last.
running_servers: list[Server] = []

_connections: dict[tuple[int, str, str | None, str | None], _native.Connection] = {}
_lock = threading.Lock()


def _forked() -> None:
    """Gives a forked process a lock of its own: its parent's may be held by a thread that it has not."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forked)


def config_folder() -> Path:
    """Where this user's settings, tokens and node keys are."""
    from pathlib import Path

    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "r3mes"


def _config() -> dict[str, Any]:
    import tomllib

    path = config_folder() / "functions.toml"
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from None


def find_gateway(given: str | None) -> tuple[str, str]:
    """HOST:PORT of the gateway, and where that was found."""
    if given:
        return _named(_with_port(given))
    for name in ("R3MES_GATEWAY", "EASYREMOTE_GATEWAY", "EASYREMOTE_GATEWAY_ADDRESS"):
        if found := os.environ.get(name):
            return _with_port(found), f"the environment variable {name}"
    if found := _config().get("gateway"):
        return _with_port(str(found)), str(config_folder() / "functions.toml")
    if running_servers:
        return running_servers[-1].address, "the Server in this process"
    return f"localhost:{DEFAULT_PORT}", "the default"


def _named(given: str) -> tuple[str, str]:
    """Where a gateway is that the configuration file knows by another name."""
    named = _config().get("gateways", {})
    for name in (given, given.removesuffix(f":{DEFAULT_PORT}")):
        if found := named.get(name):
            return _with_port(str(found)), f"{name!r} in {config_folder() / 'functions.toml'}"
    return given, "the argument"


def _with_port(addresses: str) -> str:
    parts = [address.strip() for address in addresses.split(",")]
    return ",".join(part if re.search(r":\d+$", part) else f"{part}:{DEFAULT_PORT}" for part in parts)


def find_token(auth_token: str | None, auth: str | None) -> str | None:
    """The token to show: the one given, the stored one of that name, or that of the environment."""
    if auth_token is not None and auth is not None:
        raise ValueError("give auth_token (a token) or auth (the name of a stored one), not both")
    if auth_token is not None:
        return _stored_token(auth_token) or auth_token
    if auth is None:
        return os.environ.get("R3MES_TOKEN") or None
    if found := _stored_token(auth):
        return found
    raise AuthenticationError(
        f"no token is stored as {auth!r}: put it into {config_folder() / 'tokens' / auth}, or into {_variable(auth)}"
    )


def _variable(name: str) -> str:
    return "R3MES_TOKEN_" + re.sub(r"[^A-Za-z0-9]", "_", name).upper()


def _stored_token(name: str) -> str | None:
    """The token that this user stored under a name, if there is one."""
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}", name):
        return None
    if found := os.environ.get(_variable(name)):
        return found
    try:
        return (config_folder() / "tokens" / name).read_text().strip() or None
    except FileNotFoundError:
        return None


def find_ca(given: str | os.PathLike[str] | None) -> str | None:
    """The file of the certificate authority to trust, if it is not those that the machine trusts."""
    from pathlib import Path

    found = given or os.environ.get("R3MES_FUNCTIONS_CA") or _config().get("ca")
    return str(Path(found).expanduser()) if found else None


def connect(given: str | None, token: str | None, ca: str | None) -> _native.Connection:
    """A connection to the gateway, the one that stands if there is one."""
    address, source = find_gateway(given)
    key = (os.getpid(), address, token, ca)
    standing = _connections.get(key)
    if standing is not None and standing.connected():
        return standing
    with _lock:
        standing = _connections.get(key)
        if standing is not None and standing.connected():
            return standing
        try:
            connection = _native.Connection(address, token, ca)
        except GatewayUnreachableError as error:
            raise _unreachable(error, source) from None
        _connections[key] = connection
        return connection


def _unreachable(error: object, source: str) -> GatewayUnreachableError:
    return GatewayUnreachableError(
        f"{error} (from {source}). Name a gateway by the argument `gateway`, by R3MES_GATEWAY (or "
        f"EASYREMOTE_GATEWAY), by `gateway` in {config_folder() / 'functions.toml'}, by a Server that runs "
        f"in this process, or have one at localhost:{DEFAULT_PORT}."
    )


def ask_http(path: str, given: str | None, token: str | None, ca: str | None) -> Any:
    """The JSON that the gateway answers to a GET over HTTP, the first one of several that answers."""
    import json
    import ssl
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

    addresses, source = find_gateway(given)
    trust = HTTPSHandler(context=ssl.create_default_context(cafile=ca))
    opener = build_opener(ProxyHandler({}), trust)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    failed = ""
    for address in addresses.split(","):
        scheme, _, at = address.rpartition("://")
        url = f"{'https' if scheme in ('tls', 'https') else 'http'}://{at.rstrip('/')}{path}"
        try:
            with opener.open(Request(url, headers=headers), timeout=HTTP_TIMEOUT_S) as answer:
                return json.load(answer)
        except HTTPError as error:
            raise _refused(error) from None
        except (OSError, HTTPException) as error:
            failed = f"no gateway answers at {url}: {error}"
    raise _unreachable(failed, source)


def _refused(error: HTTPError) -> CallError:
    """The exception for a problem that a gateway answers."""
    import json

    with error:
        try:
            problem = json.load(error)
            reason, detail = problem["reason"], problem["detail"]
        except (ValueError, KeyError, TypeError):
            return GatewayUnreachableError(f"{error.url} is no gateway: it answers {error.code} {error.reason}")
    return from_failure(reason, detail, None, None, problem.get("retry_after_ms"))
