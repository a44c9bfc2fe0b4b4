"""facts: what is gathered of this very host, and that nothing is left of it."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from imagecached.config import Config, DaemonSection
from imagecached.doctor import examine
from imagecached.doctor.facts import gather
from imagecached.mounts import Method, mountinfo, syscalls


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A root that does not exist yet, and a socket that nobody made."""
    return Config(daemon=DaemonSection(root=tmp_path / "root", socket=tmp_path / "socket"))


@pytest.mark.root
def test_this_host(config: Config, tmp_path: Path) -> None:
    """Real mounts in the nearest parent of the root; afterwards it is as it was."""
    facts = gather(config)
    assert facts.method is not None
    assert (facts.overlay, facts.may_mount, facts.erofs) == ("", True, True)
    assert facts.place == tmp_path
    assert facts.disk_bytes > facts.free_bytes > 0
    assert facts.floor_bytes == config.store.free_of(facts.disk_bytes)
    assert list(tmp_path.iterdir()) == []
    assert not [mount for mount in mountinfo.read() if mount.point.startswith(str(tmp_path))]


@pytest.mark.root
def test_a_root_in_memory(config: Config, tmp_path: Path) -> None:
    """tmpfs is named, and works by loop devices."""
    syscalls.mount("none", tmp_path, "tmpfs", options="size=64m")
    try:
        facts = gather(config)
        assert (facts.filesystem, facts.method, facts.overlay) == ("tmpfs", Method.LOOP, "")
    finally:
        syscalls.umount(tmp_path)


@pytest.mark.root
def test_a_root_on_an_overlay(config: Config, tmp_path: Path) -> None:
    """Writable overlays do not stack on one another; the reason is the kernel's."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    syscalls.mount("test", tmp_path / "merged", "overlay", options=options)
    try:
        facts = gather(Config(daemon=replace_root(config, tmp_path / "merged")))
        assert facts.filesystem == "overlay"
        assert facts.method is Method.LOOP
        assert "Invalid argument" in facts.overlay
    finally:
        syscalls.umount(tmp_path / "merged")


@pytest.mark.root
def test_examine(config: Config) -> None:
    """The whole of it; here the daemon does not run."""
    findings = {finding.name: finding for finding in examine(config)}
    assert findings["layers"].verdict == "ok"
    assert findings["socket"].verdict == "warn"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [(b"HTTP/1.1 404 Not Found\r\n\r\n", "answers"), (b"SSH-2.0", "silent"), (b"", "silent")],
)
def test_who_answers_at_the_socket(config: Config, reply: bytes, expected: str) -> None:
    """Any HTTP server counts; anything else does not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(config.daemon.socket))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        assert gather(config).socket_state == expected
        thread.join()


def test_a_socket_without_listener(config: Config) -> None:
    """Left behind by a daemon that was killed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(config.daemon.socket))
    assert gather(config).socket_state == "refused"
    config.daemon.socket.unlink()
    assert gather(config).socket_state == "absent"


def replace_root(config: Config, root: Path) -> DaemonSection:
    """The daemon's section with another root."""
    return DaemonSection(root=root, socket=config.daemon.socket)
