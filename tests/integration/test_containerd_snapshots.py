"""A real containerd that has its snapshots from the daemon: images of its own, prepared ones, accidents."""

from __future__ import annotations

import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from grpclib.client import Channel

from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest
from tests.support.containerd import CONTAINERD2, STABLE, Containerd, serve_containerd
from tests.support.daemon import Daemon
from tests.support.demo import HELLO, SHELL, push_demo
from tests.support.mounts import mounted_below, unmount_below
from tests.support.processes import await_true
from tests.support.registry import Registry
from tests.support.snapshots import Snapshots

pytestmark = [pytest.mark.root, pytest.mark.containerd, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def demo(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """The registry with both demo images in it."""
    push_demo(registry, tmp_path_factory.mktemp("demo"))
    return registry


@dataclass(frozen=True)
class Node:
    """A daemon and the containerd that uses it."""

    daemon: Daemon
    containerd: Containerd

    def pull(self, reference: str) -> None:
        """Pull through containerd into our snapshotter."""
        certs = self.containerd.directory / "certs.d"
        self.containerd.ctr("images", "pull", "--hosts-dir", certs, "--snapshotter", "imagecached", reference)

    def end_leases(self) -> None:
        """Let containerd collect what no image refers to."""
        for lease in self.containerd.ctr("leases", "list", "--quiet").split():
            self.containerd.ctr("leases", "delete", lease)

    async def register(self, reference: str, namespace: str = "default") -> None:
        """Tell containerd of the prepared chain, as its unpackers do: through its own snapshots service.

        (``ctr`` of containerd 1.6 unpacks without telling us what it is about to unpack.) A lease keeps the
        chain from a garbage collection that comes before an image refers to it.
        """
        described = self.daemon.ask("describe", reference)
        lease = self.containerd.ctr("--namespace", namespace, "leases", "create").strip()
        channel = Channel(path=str(self.containerd.socket))
        try:
            snapshots = Snapshots(channel, namespace=namespace, lease=lease)
            parent = ""
            for chain_id in chain_ids([Digest(layer["diff_id"]) for layer in described["layers"]]):
                await snapshots.register(chain_id, parent)
                parent = chain_id
        finally:
            channel.close()

    def run(self, reference: str, *command: str) -> str:
        """What a container of an image that containerd has says."""
        ours = ("--snapshotter", "imagecached", reference, new_id())
        return self.containerd.ctr("run", "--rm", *ours, *command)

    def try_run(self, reference: str, *command: str) -> str:
        """The same, or nothing if containerd cannot start it now."""
        with suppress(subprocess.CalledProcessError):
            return self.run(reference, *command)
        return ""

    def layers(self) -> set[str]:
        """DiffIDs of the layers that the daemon holds."""
        return {layer["diff_id"] for layer in self.daemon.ask("get", "layers")["layers"]}

    def unpacked(self) -> int:
        """How many snapshots have a directory of their own."""
        return sum(1 for path in (self.daemon.root / "s").iterdir() if path.suffix != ".trash")

    def snapshots(self) -> list[str]:
        """Names of containerd's snapshots here."""
        lines = self.containerd.ctr("snapshots", "--snapshotter", "imagecached", "list").splitlines()
        return [line.split()[0] for line in lines[1:]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, as the root of a real host is."""
    path = Path(tempfile.mkdtemp(prefix="n-"))
    yield path
    unmount_below(path)
    shutil.rmtree(path)


@pytest.fixture(
    params=[
        pytest.param(STABLE, id="1"),
        pytest.param(CONTAINERD2, id="2", marks=pytest.mark.containerd2),
    ]
)
def programs(request: pytest.FixtureRequest) -> Path | None:
    """Each version of containerd."""
    chosen: Path | None = request.param
    return chosen


@pytest.fixture
def node(demo: Registry, folder: Path, programs: Path | None) -> Iterator[Node]:
    """Both, on empty roots; the socket between them is held open as systemd does it."""
    path = folder / "snapshots.sock"
    ours = {"socket": str(path), "pull_on_miss": False}
    daemon = Daemon(folder, snapshotter=ours, registry={"plain_http": [demo.address]})
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        daemon.hand_over(listener)
        daemon.start()
        try:
            with serve_containerd(plain_http=[demo.address], snapshots=path, programs=programs) as containerd:
                yield Node(daemon, containerd)
        finally:
            if daemon.process is not None:
                daemon.stop()


def new_id() -> str:
    """Of a container: runc keeps them all in one folder, whichever containerd they belong to."""
    return f"test-{secrets.token_hex(4)}"


def test_an_image_that_we_do_not_know(demo: Registry, node: Node) -> None:
    """containerd fetches and unpacks it; it runs; removed, nothing of it is left."""
    hello, shell = demo.reference(HELLO), demo.reference(SHELL)
    node.pull(hello)
    node.pull(shell)
    assert node.run(hello) == "Hello, world!\n"
    assert node.run(shell, "sh", "-c", "echo x >/new && cat /new") == "x\n"
    assert node.layers() == set()
    for reference in (hello, shell):
        node.containerd.ctr("images", "remove", "--sync", reference)
    node.containerd.ctr("content", "prune", "references")
    assert node.snapshots() == []
    assert node.unpacked() == 0


async def test_an_image_that_we_prepared(demo: Registry, node: Node) -> None:
    """containerd unpacks nothing, the container runs from our layer files, gc leaves them alone."""
    hello = demo.reference(HELLO)
    node.daemon.ctl("pull", hello)
    await node.register(hello)
    node.pull(hello)
    layers = node.layers()
    assert node.unpacked() == 0
    assert node.run(hello) == "Hello, world!\n"
    assert len(node.snapshots()) == len(layers)
    node.daemon.ctl("rm", hello)
    node.daemon.ctl("gc")
    assert node.layers() == layers
    assert node.run(hello) == "Hello, world!\n"
    node.end_leases()
    node.containerd.ctr("images", "remove", "--sync", hello)
    assert node.snapshots() == []
    node.daemon.ctl("gc")
    assert node.layers() == set()
    assert mounted_below(node.daemon.root) == []


async def test_the_other_namespace_gets_it_too(demo: Registry, node: Node) -> None:
    """One record may serve two namespaces; the sweep of one does not take it from the other."""
    hello = demo.reference(HELLO)
    node.daemon.ctl("pull", hello)
    await node.register(hello)
    await node.register(hello, "other")
    node.pull(hello)
    certs = node.containerd.directory / "certs.d"
    ours, other = ("--snapshotter", "imagecached", hello), ("--namespace", "other")
    node.containerd.ctr(*other, "images", "pull", "--hosts-dir", certs, *ours)
    node.containerd.ctr("images", "remove", "--sync", hello)
    assert node.containerd.ctr(*other, "run", "--rm", *ours, new_id()) == "Hello, world!\n"


async def test_the_daemon_is_killed_while_a_container_runs(demo: Registry, node: Node) -> None:
    """The container reads, writes and executes on; new ones start when the daemon is back.

    containerd answers by itself, for up to 3 s, while it waits to try again a server that was silent.
    """
    shell, container = demo.reference(SHELL), new_id()
    node.daemon.ctl("pull", shell)
    await node.register(shell)
    node.pull(shell)
    node.containerd.ctr("run", "--detach", "--snapshotter", "imagecached", shell, container, "sleep", "1000")

    def execute(number: int) -> str:
        command = f"echo {number} >>/log && cat /log"
        return node.containerd.ctr("tasks", "exec", "--exec-id", f"e{number}", container, "sh", "-c", command)

    try:
        for number in range(2):
            node.daemon.stop(signal.SIGKILL)
            assert execute(number).split() == [str(one) for one in range(number + 1)]
            node.daemon.start()
        assert execute(2).split() == ["0", "1", "2"]
        await_true(
            lambda: node.try_run(shell, "echo", "back") == "back\n",
            what="a new container",
            deadline_seconds=15,
            alive=lambda: True,
        )
    finally:
        node.containerd.ctr("tasks", "delete", "--force", container)
        node.containerd.ctr("containers", "delete", container)


async def test_containerd_lost_its_database(
    demo: Registry, node: Node, folder: Path, programs: Path | None
) -> None:
    """A containerd that begins anew with the same sequence numbers gets its images, prepared or not; its
    sweep takes what the old one left.
    """
    hello, shell = demo.reference(HELLO), demo.reference(SHELL)
    node.daemon.ctl("pull", hello)
    await node.register(hello)
    node.pull(hello)
    node.pull(shell)
    path = folder / "snapshots.sock"
    with serve_containerd(plain_http=[demo.address], snapshots=path, programs=programs) as containerd:
        anew = Node(node.daemon, containerd)
        await anew.register(hello)
        anew.pull(hello)
        anew.pull(shell)
        assert anew.run(hello) == "Hello, world!\n"
        assert anew.run(shell, "echo", "here") == "here\n"
        for reference in (hello, shell):
            containerd.ctr("images", "remove", "--sync", reference)
        assert node.unpacked() == 0


async def test_both_kinds_of_layers_in_one_image(demo: Registry, node: Node) -> None:
    """The demo images share their base: it is ours, containerd unpacks the two layers above it itself."""
    hello, shell = demo.reference(HELLO), demo.reference(SHELL)
    node.daemon.ctl("pull", shell)
    base = node.layers()
    await node.register(shell)
    node.pull(hello)
    assert node.layers() == base
    assert (node.unpacked(), len(node.snapshots())) == (2, 3)
    assert node.run(hello) == "Hello, world!\n"
