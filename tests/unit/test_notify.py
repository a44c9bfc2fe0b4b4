"""notify: the datagram that systemd expects, and silence without systemd."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from imagecached.notify import notify, watchdog_seconds


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@imagecached-test-{os.getpid()}"


def test_the_state_arrives(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds of socket address carry the text."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address.replace("@", "\0"))
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        assert notify("READY=1")
        assert listener.recv(100) == b"READY=1"


@pytest.mark.parametrize("value", ["", "vsock:2:1", "/nonexistent/socket"])
def test_nobody_listening_is_no_error(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a reachable socket nothing happens."""
    monkeypatch.setenv("NOTIFY_SOCKET", value)
    assert not notify("READY=1")


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [("20000000", "", 10.0), ("20000000", "1", None), ("", "", None), ("0", "", None), ("x", "", None)],
)
def test_watchdog_interval(
    usec: str, pid: str, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the allowed time, and only if it is meant for this process."""
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    assert watchdog_seconds() == expected
