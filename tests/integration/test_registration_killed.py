"""Registration is killed before each of its steps, and the next run completes it."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.containerd import Containerd, serve_containerd
from tests.support.daemon import Daemon
from tests.support.demo import HELLO, push_demo
from tests.support.mounts import unmount_below
from tests.support.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.containerd, pytest.mark.timeout(240)]

STEPS = ["PutBlob", "PutBlob", "MakeChain", "CreateRecord", "CreateRecord", "CreateRecord"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, as socket addresses must be."""
    path = Path(tempfile.mkdtemp(prefix="k-"))
    yield path
    unmount_below(path)
    shutil.rmtree(path)


def register(
    folder: Path, containerd: Containerd, listener: socket.socket, step: int, *namespaces: str
) -> tuple[int, str]:
    """Run the driver; how it ended, and before which step."""
    driver = [sys.executable, "-m", "tests.integration.registering"]
    places = [folder / "root", folder / "s.sock", containerd.socket]
    script = f'exec 3<&{listener.fileno()}; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *driver, *map(str, places), str(step), *namespaces],
        pass_fds=[listener.fileno()],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, done.stdout.strip()


def held(containerd: Containerd, namespace: str, kind: str) -> list[str]:
    """Names of images or leases."""
    return containerd.ctr("--namespace", namespace, kind, "list", "--quiet").split()


def test_killed_before_each_step(registry: Registry, folder: Path, tmp_path: Path) -> None:
    """Until the chain is there, nobody finds the image by name; the next run ends the lease that was left,
    and a collection takes nothing of what it needs.
    """
    push_demo(registry, tmp_path)
    hello, path = registry.reference(HELLO), folder / "s.sock"
    daemon = Daemon(folder, snapshotter={"socket": str(path)}, registry={"plain_http": [registry.address]})
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        daemon.hand_over(listener)
        daemon.start()
        daemon.ctl("pull", hello)
        daemon.stop()
        spaces = [f"n{number}" for number, _ in enumerate(STEPS)]
        with serve_containerd(snapshots=path) as containerd:
            for number, (space, name) in enumerate(zip(spaces, STEPS, strict=True)):
                assert register(folder, containerd, listener, number, space) == (-signal.SIGKILL, name)
                assert (held(containerd, space, "images") == []) == (number <= STEPS.index("CreateRecord"))
                assert len(held(containerd, space, "leases")) == 1
            assert register(folder, containerd, listener, 1000, *spaces) == (0, "")
            daemon.start()
            containerd.collect_garbage()
            for space in spaces:
                assert held(containerd, space, "leases") == []
                run = ("run", "--rm", "--snapshotter", "imagecached", hello, f"test-{space}")
                assert containerd.ctr("--namespace", space, *run) == "Hello, world!\n"
            daemon.stop()
