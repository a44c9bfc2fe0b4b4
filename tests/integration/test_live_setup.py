"""A live node is set up, used, and set back: containerd runs all the while but for the restarts it needs."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from imagecached import aio
from imagecached.containerd import Containerd as Client
from imagecached.containerd import SnapshotInfo
from imagecached.doctor import in_use, why_no_pods
from imagecached.dropin import NAME, Places
from imagecached.dropin.objections import InUse
from imagecached.dropin.setup import Setup
from imagecached.errors import FailedPrecondition, Unavailable
from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest
from imagecached.registration.farewell import forget
from tests.support import cri
from tests.support.containerd import CONTAINERD2, Containerd, serve_containerd
from tests.support.daemon import Daemon
from tests.support.demo import HELLO, SHELL, push_demo
from tests.support.mounts import unmount_below
from tests.support.nodes import push_pause
from tests.support.registered import await_state
from tests.support.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.containerd, pytest.mark.containerd2, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def demo(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """The registry with both demo images in it."""
    push_demo(registry, tmp_path_factory.mktemp("demo"))
    return registry


@dataclass(frozen=True)
class Live:
    """A containerd in use, and a daemon that it does not know of yet."""

    containerd: Containerd
    daemon: Daemon
    setup: Setup
    places: Places

    def kubelet(self) -> AbstractAsyncContextManager[cri.Cri]:
        """CRI of the containerd that runs now."""
        return cri.connected(self.containerd.socket, self.containerd.directory / "logs")

    async def stat(self, key: str) -> SnapshotInfo | None:
        """What containerd says of a snapshot of ours."""
        containerd = Client(self.containerd.socket)
        try:
            return await containerd.namespace("k8s.io").snapshots(NAME).stat(key)
        finally:
            await containerd.close()

    async def seen(self) -> InUse:
        """What the installer sees."""
        seen = await aio.finish(in_use, self.containerd.socket)
        assert seen is not None
        return seen

    def restart(self) -> None:
        """As systemd does it."""
        self.containerd.stop()
        self.containerd.start()


@pytest.fixture
def live(demo: Registry, tmp_path: Path) -> Iterator[Live]:
    """Both run; the daemon tells containerd of images as soon as that has a snapshotter of this name."""
    pause = push_pause(demo, tmp_path / "pause")
    folder = Path(tempfile.mkdtemp(prefix="live-")).resolve()
    path = folder / "snapshots.sock"
    try:
        with (
            socket.socket(socket.AF_UNIX) as listener,
            serve_containerd(plain_http=[demo.address], programs=CONTAINERD2, pause=pause) as containerd,
        ):
            listener.bind(str(path))
            listener.listen()
            daemon = Daemon(
                folder,
                snapshotter={"socket": str(path)},
                registry={"plain_http": [demo.address]},
                containerd={"socket": str(containerd.socket), "mode": "default"},
            )
            daemon.hand_over(listener)
            daemon.start()
            program = str(CONTAINERD2 / "containerd")
            setup = Setup(containerd.config, folder / "records", program, folder / "data")
            try:
                yield Live(containerd, daemon, setup, Places(path, daemon.root))
            finally:
                if daemon.process is not None:
                    daemon.stop()
    finally:
        unmount_below(folder)
        shutil.rmtree(folder)


async def test_a_node_is_set_up_and_set_back(demo: Registry, live: Live) -> None:
    """Not while it runs pods of another snapshotter; afterwards pods are ours; set back, they pull again.

    What containerd could not start without us it has forgotten by then, the rest is unpinned.
    """
    hello, config = demo.reference(HELLO), live.containerd.config
    before = config.read_bytes()
    async with live.kubelet() as kubelet:
        async with kubelet.pod(hello):
            with pytest.raises(FailedPrecondition, match="2 containers are here"):
                live.setup.install("default", live.places, await live.seen())
        await kubelet.remove_image(hello)
    assert config.read_bytes() == before
    assert live.setup.install("default", live.places, await live.seen()) is True
    live.restart()
    assert await aio.finish(why_no_pods, live.containerd.socket) == ""

    shell = demo.reference(SHELL)
    live.daemon.ctl("pull", hello, shell)
    for reference in (hello, shell):
        await_state(live.daemon, reference)
    live.daemon.ctl("blobs", "fetch", shell)
    async with live.kubelet() as kubelet:
        with demo.requests("demo/hello") as requests:
            async with kubelet.pod(hello) as pod:
                assert await pod.execute("hello") == "Hello, world!\n"
        assert requests == []
        ended = await kubelet.start_pod(hello, ("sleep", "1000"))
        await kubelet.call("StopPodSandbox", pod_sandbox_id=ended.sandbox)
    assert hello in (await live.seen()).only_ours

    layers = live.daemon.ask("describe", shell)["layers"]
    top = chain_ids([Digest(layer["diff_id"]) for layer in layers])[-1]
    live.daemon.stop()
    live.places.socket.unlink()  # as before a daemon's first start: containerd must serve without it
    live.restart()
    assert await aio.finish(why_no_pods, live.containerd.socket) == ""
    with pytest.raises(Unavailable):  # containerd believes that we have it, and asks
        await live.stat(top)

    assert hello in await aio.finish(forget, live.containerd.socket, ("k8s.io",))
    assert await live.seen() == InUse(0, only_ours=(), only_others=())
    assert await live.stat(top) is None  # nothing is left to ask about
    assert live.setup.undo() is True
    assert config.read_bytes() == before
    live.restart()
    async with live.kubelet() as kubelet:
        kept = await kubelet.image(shell)
        assert kept is not None
        assert not kept.pinned
        async with kubelet.pod(shell) as pod:
            assert await pod.execute("echo", "here") == "here\n"
        assert await kubelet.image(hello) is None
        async with kubelet.pod(hello) as pod:
            assert await pod.execute("hello") == "Hello, world!\n"


def test_nobody_answers(tmp_path: Path) -> None:
    """That is told, and is no crash."""
    socket = tmp_path / "no.sock"
    assert in_use(socket) is None
    assert forget(socket, ("k8s.io",)) == ()
    assert why_no_pods(socket, patience_seconds=0.1) != ""
