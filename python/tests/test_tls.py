"""Calls over TLS, with certificates of the command line's authority; Python's own TLS is the judge."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import urllib.request
from pathlib import Path
from typing import Iterator

import pytest

from r3mes import Client, ComputeNode, GatewayUnreachableError, Server, remote

PROGRAM = Path(os.environ.get("R3MES", Path(__file__).parents[2] / "target/debug/r3mes"))


def authority(folder: Path) -> dict[str, str]:
    """The files of a new authority and of a certificate of it."""
    assert PROGRAM.exists(), f"{PROGRAM} is missing: build it with `cargo build`, or name it in R3MES"
    command = [PROGRAM, "--json", "functions", "ca", "create", folder]
    made: dict[str, str] = json.loads(subprocess.check_output(command))
    return made


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return authority(tmp_path / "ca")


@pytest.fixture
def secure(files: dict[str, str]) -> Iterator[Server]:
    with Server(port=0, certificate=files["certificate"], key=files["key"]) as server:
        yield server


def test_calls_go_over_tls(secure: Server, files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert secure.address.startswith("tls://")
    node = ComputeNode(secure.address, "safe", ca=files["ca"])

    @node.register
    def double(x: int) -> int:
        return 2 * x

    with node:
        assert Client(secure.address, ca=files["ca"]).execute("double", 21) == 42
        monkeypatch.setenv("R3MES_FUNCTIONS_CA", files["ca"])
        assert remote("safe", "double", gateway=secure.address)(4) == 8


def test_python_itself_trusts_the_certificate(secure: Server, files: dict[str, str]) -> None:
    context = ssl.create_default_context(cafile=files["ca"])
    port = int(secure.address.rsplit(":", 1)[1])
    for name in ("localhost", "127.0.0.1"):
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname=name) as spoken,
        ):
            assert spoken.version() == "TLSv1.3"


def test_http_is_spoken_over_tls_too(secure: Server, files: dict[str, str]) -> None:
    assert secure.url.startswith("https://")
    trusting = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=files["ca"]))
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), trusting)
    with direct.open(f"{secure.url}/health", timeout=60) as answer:
        assert json.load(answer)["status"] == "ok"
    assert Client(secure.address, ca=files["ca"]).metrics().gateway.connected_nodes == 0
    with pytest.raises(GatewayUnreachableError, match="certificate verify failed"):
        Client(secure.address).metrics()


def test_who_is_not_trusted_is_refused_in_words(secure: Server, tmp_path: Path) -> None:
    stranger = authority(tmp_path / "stranger")["ca"]
    with pytest.raises(GatewayUnreachableError, match="signed by no authority that is trusted"):
        Client(secure.address, ca=stranger).nodes()
    node = ComputeNode(secure.address, "safe", ca=stranger)
    with pytest.raises(RuntimeError, match="signed by no authority that is trusted"):
        node.start()
    node.stop()


def test_a_certificate_needs_its_key(files: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="both"):
        Server(certificate=files["certificate"])
    other = authority(tmp_path / "other")["key"]
    with pytest.raises(ValueError, match="is not that of the certificate"):
        Server(port=0, certificate=files["certificate"], key=other).start()
