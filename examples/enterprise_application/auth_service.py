"""Knows who is who."""

import hashlib
import hmac
from dataclasses import dataclass

from easyremote import ComputeNode

node = ComputeNode(node_id="auth-service")
known = {"alice": hashlib.scrypt(b"correct horse", salt=b"alice", n=1024, r=8, p=1)}


@dataclass
class User:
    id: int
    name: str


@node.register
def authenticate_user(credentials):
    name, password = credentials["name"], credentials["password"].encode()
    given = hashlib.scrypt(password, salt=name.encode(), n=1024, r=8, p=1)
    if not hmac.compare_digest(given, known.get(name, b"")):
        raise PermissionError("wrong name or password")
    return User(7, name)

node.serve()
