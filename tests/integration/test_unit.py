"""The systemd unit, run as systemd runs it: its command, environment and notify socket. No systemd needed.

What systemd itself makes of the unit is checked by ``systemd-analyze verify`` in test_house.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagecached import daemon as composition
from tests.support.daemon import BIN
from tests.support.demo import SHELL, push_demo
from tests.support.mounts import mounted_below, unmount_below
from tests.support.processes import await_true
from tests.support.registry import Registry

UNIT = Path(__file__).resolve().parents[2] / "systemd/imagecached.service"
PINGS_SECONDS = 0.2
MANIFEST = """
apiVersion: eci.alibabacloud.com/v1
kind: ImageCache
metadata: {name: demo}
spec: {images: [IMAGE]}
"""

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]


def setting(key: str) -> list[str]:
    """The values of a key of the unit."""
    lines = (line.partition("=") for line in UNIT.read_text().splitlines() if not line.startswith("#"))
    return [value for name, _, value in lines if name == key]


class Unit:
    """The service below a folder, with whatever it tells the service manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(folder / "notify"))
        self.manager.settimeout(30)
        self.log = (folder / "log").open("ab")
        for name in ("run", "state", "caches.d"):
            (folder / name).mkdir()
        self.process = subprocess.Popen(
            self._command(),
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )

    def _command(self) -> list[str]:
        [command] = setting("ExecStart")
        program, *arguments = shlex.split(command)
        return ["setpriv", "--pdeathsig", "KILL", "--", str(BIN / Path(program).name), *arguments]

    def _environment(self) -> dict[str, str]:
        """What the unit's EnvironmentFile may hold, and what systemd adds of its own."""
        return {
            "PATH": os.environ["PATH"],
            "NOTIFY_SOCKET": str(self.folder / "notify"),
            "WATCHDOG_USEC": str(int(2 * PINGS_SECONDS * 1e6)),
            "IMAGECACHED_DAEMON__ROOT": str(self.folder / "state"),
            "IMAGECACHED_DAEMON__SOCKET": str(self.folder / "run/api.sock"),
            "IMAGECACHED_HTTP__ADDRESS": "",
            "IMAGECACHED_CACHES__DIR": str(self.folder / "caches.d"),
        }

    def told(self) -> str:
        """The next thing that is no ping of the watchdog."""
        while (message := self.manager.recv(4096).decode()) == "WATCHDOG=1":
            continue
        return message

    def ping(self, within: float) -> bool:
        """Does a ping come in time?"""
        self.manager.settimeout(within)
        try:
            return self.manager.recv(4096) == b"WATCHDOG=1"
        except TimeoutError:
            return False
        finally:
            self.manager.settimeout(30)

    def drain(self) -> None:
        """Forget what has come so far."""
        self.manager.setblocking(False)
        try:
            while self.manager.recv(4096):
                continue
        except BlockingIOError:
            self.manager.settimeout(30)

    def reload(self) -> None:
        """As ``systemctl reload``."""
        [command] = setting("ExecReload")
        subprocess.run(shlex.split(command.replace("$MAINPID", str(self.process.pid))), check=True)

    def ctl(self, *arguments: str | Path) -> str:
        """What imagecachectl prints."""
        argv = [BIN / "imagecachectl", "--socket", self.folder / "run/api.sock", *arguments]
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
        ).stdout


@pytest.fixture
def unit(tmp_path: Path) -> Iterator[Unit]:
    """The running service; what it mounted is unmounted at the end."""
    unit = Unit(tmp_path)
    try:
        assert unit.told() == "READY=1", (tmp_path / "log").read_text()
        yield unit
    finally:
        if unit.process.poll() is None:
            unit.process.kill()
            unit.process.wait()
        unit.manager.close()
        unit.log.close()
        unmount_below(tmp_path)


def test_ready_means_that_it_answers(unit: Unit) -> None:
    """Whoever is ordered after the unit finds it working; it needs neither network nor containerd."""
    assert unit.ctl("get", "images").startswith("NAME")
    assert setting("Type") == ["notify"]
    assert setting("Before") == ["containerd.service"]
    assert "network-online.target" not in " ".join(setting("After") + setting("Wants"))


def test_the_watchdog_sees_a_process_that_stands_still(unit: Unit) -> None:
    """Pings come twice per interval, cease when nothing moves, and come again."""
    assert all(unit.ping(within=10 * PINGS_SECONDS) for _ in range(3))
    unit.process.send_signal(signal.SIGSTOP)
    status = Path(f"/proc/{unit.process.pid}/status")
    await_true(
        lambda: "\nState:\tT" in status.read_text(), what="the stop", deadline_seconds=10, alive=lambda: True
    )
    unit.drain()
    assert not unit.ping(within=5 * PINGS_SECONDS)
    unit.process.send_signal(signal.SIGCONT)
    assert unit.ping(within=50 * PINGS_SECONDS)


async def test_the_watchdog_sees_an_event_loop_that_is_blocked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads and the process may live on: without its event loop the daemon serves nobody."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "20000")
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            watchdog = group.create_task(composition._watchdog())
            for _ in range(3):
                assert await loop.sock_recv(manager, 100) == b"WATCHDOG=1"
            threading.Event().wait(0.2)  # blocks the loop for ten intervals
            with pytest.raises(BlockingIOError):
                manager.recv(100)
            assert await loop.sock_recv(manager, 100) == b"WATCHDOG=1"
            watchdog.cancel()


def test_reload_reads_the_files_of_imagecaches(unit: Unit) -> None:
    """At once, even a file that was just written; the manager hears when it begins and when it is done."""
    (unit.folder / "caches.d/demo.yaml").write_text(MANIFEST.replace("IMAGE", "registry.invalid/x:1"))
    unit.reload()
    first, second = unit.told().split("\n"), unit.told()
    assert first[0] == "RELOADING=1"
    assert first[1].startswith("MONOTONIC_USEC=")
    assert second == "READY=1"
    assert "demo" in unit.ctl("get", "imagecaches")
    (unit.folder / "caches.d/demo.yaml").unlink()
    unit.reload()
    unit.told()
    assert unit.told() == "READY=1"
    assert unit.process.poll() is None


def test_stop_unmounts_nothing(unit: Unit, registry: Registry, tmp_path: Path) -> None:
    """It says that it stops, ends in time with status 0, and containers keep their file systems."""
    push_demo(registry, tmp_path / "demo")
    target = tmp_path / "tree"
    target.mkdir()
    unit.ctl("mount", registry.reference(SHELL), target)
    before = mounted_below(tmp_path)
    unit.process.send_signal(signal.SIGTERM)
    assert unit.told() == "STOPPING=1"
    assert unit.process.wait(30) == 0
    assert mounted_below(tmp_path) == before
    assert (target / "bin/busybox").read_bytes()[:4] == b"\x7fELF"
    assert setting("KillMode") == ["process"]
