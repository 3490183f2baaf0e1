"""What importing the package brings along: modules that a program pays for although it may not need them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings

import pytest

import r3mes
from r3mes import _gateway

#: Of Python's own, each takes longer to import than this package.
HEAVY = {
    "asyncio",
    "concurrent.futures",
    "dataclasses",
    "email",
    "inspect",
    "json",
    "logging",
    "multiprocessing",
    "pathlib",
    "socket",
    "ssl",
    "subprocess",
    "tomllib",
    "traceback",
    "urllib",
}
#: Of others, and only where a program uses them itself.
OTHERS = {"numpy", "pyarrow", "pydantic", "torch"}


def imported_by(code: str) -> set[str]:
    """Modules that a program of this one line has in the end, but for those of an empty one."""
    words = "import sys; before = set(sys.modules); {}; print(*sys.modules.keys() - before)"
    run = subprocess.run([sys.executable, "-c", words.format(code)], stdout=subprocess.PIPE, text=True, check=True)
    return set(run.stdout.split())


def test_importing_the_package_imports_nothing_else() -> None:
    assert imported_by("import r3mes") == {"r3mes"}


@pytest.mark.parametrize("package", ["r3mes", "easyremote"])
def test_nodes_gateways_and_calls_import_nothing_heavy(package: str) -> None:
    came = imported_by(f"from {package} import Client, ComputeNode, Server, errors, remote")
    assert "r3mes._native" in came and came & (HEAVY | OTHERS) == set()


def test_every_name_of_the_package_is_there() -> None:
    assert set(r3mes.__all__) <= set(dir(r3mes))
    for name in r3mes.__all__:
        assert getattr(r3mes, name) is not None
    with pytest.raises(AttributeError, match="module 'r3mes' has no attribute 'Clients'"):
        r3mes.Clients  # type: ignore[attr-defined]  # noqa: B018


def test_values_are_known_to_whoever_imports_the_native_half_alone() -> None:
    code = "from r3mes import _native; assert _native.decode(_native.encode({1, 2})) == [1, 2]"
    assert "r3mes._values" in imported_by(code)


def test_a_process_that_is_forked_while_a_thread_connects_can_connect() -> None:
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with _gateway._lock:
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Newer versions of Python warn of what this is about.
        child = os.fork()
    if child == 0:  # Nobody is left who could give the lock back.
        os._exit(0 if _gateway._lock.acquire(timeout=10) else 1)
    _, status = os.waitpid(child, 0)
    assert _gateway._lock.locked()
    release.set()
    thread.join()
    assert status == 0
