"""The daemon as its DaemonSet runs it: in a mount namespace of its own, shared with the host where the
manifest says so, and without the capabilities that the manifest drops. containerd is the host's.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.kustomize import build
from tests.e2e.node import mounts
from tests.support import cri
from tests.support.containerd import CONTAINERD2, Containerd, serve_containerd
from tests.support.daemon import BIN, Daemon
from tests.support.demo import SHELL, push_demo
from tests.support.mounts import unmount_below
from tests.support.nodes import push_pause
from tests.support.registry import Registry

pytestmark = [
    pytest.mark.root,
    pytest.mark.containerd,
    pytest.mark.containerd2,
    pytest.mark.timeout(180),
]

FOLDER: Final = Path(__file__).resolve().parents[2] / "daemonset"
HANDLER: Final = "imagecached"


def _command() -> list[str]:
    """The container's command, up to our program."""
    [found] = [each for each in build(FOLDER) if each["kind"] == "DaemonSet"]
    [container] = found["spec"]["template"]["spec"]["containers"]
    *before, program = container["command"]
    assert program == "imagecached"
    return list(before)


class PodDaemon(Daemon):
    """Whatever the daemon mounts reaches the host by propagation, as from a container, or not at all."""

    def launch(self) -> subprocess.Popen[bytes]:
        """Start without waiting."""
        argv: list[str | Path] = ["setpriv", "--pdeathsig", "KILL", "--"]
        argv += ["unshare", "--mount", "--propagation", "unchanged", "--", *_command(), BIN / "imagecached"]
        argv += ["serve", "--root", self.root, "--socket", self.socket, "--config", self._config]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self.process


@pytest.fixture
def daemon(registry: Registry) -> Iterator[PodDaemon]:
    """Running, with its root below a mount that goes both ways."""
    folder = Path(tempfile.mkdtemp(prefix="pod-")).resolve()
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "--make-rshared", folder], check=True)
    daemon = PodDaemon(
        folder / "d",
        snapshotter={"socket": str(folder / "s.sock")},
        registry={"plain_http": [registry.address]},
    )
    daemon.start()
    try:
        yield daemon
    finally:
        if daemon.process is not None:
            daemon.stop()
        unmount_below(folder)
        subprocess.run(["umount", "--lazy", folder], check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def containerd(registry: Registry, daemon: PodDaemon, tmp_path: Path) -> Iterator[Containerd]:
    """The host's, with the handler."""
    pause = push_pause(registry, tmp_path / "pause")
    with serve_containerd(
        plain_http=[registry.address],
        programs=CONTAINERD2,
        snapshots=daemon.directory.parent / "s.sock",
        pause=pause,
        mode="handler",
        root=daemon.root,
    ) as running:
        yield running


async def test_containers_of_the_host_stand_on_mounts_of_the_pod(
    daemon: PodDaemon, containerd: Containerd, registry: Registry, tmp_path: Path
) -> None:
    """They start from them, outlive the daemon's death with them, and start again when it is back."""
    push_demo(registry, tmp_path / "demo")
    image = registry.reference(SHELL)
    daemon.ctl("pull", image)
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert Path(f"/proc/{daemon.process.pid}/ns/mnt").readlink() != Path("/proc/self/ns/mnt").readlink()
    async with (
        cri.connected(containerd.socket, containerd.directory / "logs") as connection,
        connection.pod(image, handler=HANDLER) as pod,
    ):
        layers = list(mounts(daemon.root / "m"))
        assert layers
        assert await pod.execute("sh", "-c", "echo works") == "works\n"
        daemon.stop(signal.SIGKILL)
        assert await pod.execute("sh", "-c", "ls /bin/sh") == "/bin/sh\n"
        assert list(mounts(daemon.root / "m")) == layers
        daemon.start()
        async with connection.pod(image, handler=HANDLER) as second:
            assert await second.execute("sh", "-c", "echo again") == "again\n"
        assert await pod.execute("sh", "-c", "echo still") == "still\n"
