"""Pods over CRI with snapshots of ours: containerd 1.6, 1.7 and 2, in both modes, set up by what we print.

One node of each kind serves all tests here, so that its state is that of a node in use.
"""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.containerd import CONTAINERD2, CONTAINERD17, STABLE, Mode, version_of
from tests.support.cri import Cri, Pod, patiently
from tests.support.demo import HELLO, SHELL, push_demo
from tests.support.nodes import Node, push_pause, serve_node
from tests.support.processes import await_true
from tests.support.registered import await_state, serve_registered
from tests.support.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.containerd, pytest.mark.timeout(180)]


@dataclass(frozen=True)
class Kind:
    """One way to set a node up."""

    mode: Mode
    programs: Path | None


KINDS = [
    pytest.param(Kind("default", STABLE), id="1-default"),
    pytest.param(Kind("handler", CONTAINERD17), id="1.7-handler", marks=pytest.mark.containerd17),
    pytest.param(Kind("default", CONTAINERD2), id="2-default", marks=pytest.mark.containerd2),
    pytest.param(Kind("handler", CONTAINERD2), id="2-handler", marks=pytest.mark.containerd2),
]


@pytest.fixture(scope="module")
def demo(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """The registry with both demo images in it."""
    push_demo(registry, tmp_path_factory.mktemp("demo"))
    return registry


@pytest.fixture(scope="module")
def pause(demo: Registry, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image of sandboxes."""
    return push_pause(demo, tmp_path_factory.mktemp("pause"))


@pytest.fixture(scope="module", params=KINDS)
def node(demo: Registry, pause: str, request: pytest.FixtureRequest) -> Iterator[Node]:
    """A daemon and a containerd for all tests of one kind of node."""
    kind: Kind = request.param
    with serve_registered(demo, pause, kind.mode, kind.programs) as served:
        yield served


@pytest.fixture
async def cri(node: Node) -> AsyncIterator[Cri]:
    """The kubelet's view of it."""
    async with node.cri() as connection:
        yield connection


@pytest.fixture
def hello(demo: Registry, node: Node) -> str:
    """A prepared image, by the name that a matched pod has for it: in handler mode with its digest."""
    tag = demo.reference(HELLO)
    node.daemon.ctl("pull", tag)
    await_state(node.daemon, tag)
    return f"{tag}@{node.daemon.ask('describe', tag)['target_digest']}" if node.handler else tag


def version(node: Node) -> tuple[int, int]:
    """Of its containerd: the distribution's may be 1.6 or 1.7."""
    return version_of(node.containerd.programs)


def snapshots(node: Node, snapshotter: str) -> set[str]:
    """The keys that containerd has in a snapshotter for CRI."""
    listed = node.containerd.ctr("--namespace", "k8s.io", "snapshots", "--snapshotter", snapshotter, "list")
    return {line.split()[0] for line in listed.splitlines()[1:]}


async def say_hello(cri: Cri, reference: str, handler: str) -> None:
    """A pod of the image starts and does what it is for."""
    async with cri.pod(reference, handler=handler) as pod:
        assert await pod.execute("hello") == "Hello, world!\n"


async def test_the_life_of_a_pod(demo: Registry, node: Node, cri: Cri) -> None:
    """Pull, sandbox, container, exec, log, remove: container and sandbox lie in snapshots of ours."""
    shell = demo.reference(SHELL)
    async with cri.pod(shell, "sh", "-c", "echo started; sleep 1000", handler=node.handler) as pod:
        assert await pod.execute("sh", "-c", "echo x >/new && cat /new") == "x\n"
        assert pod.log() == "started\n"
        assert {pod.container, pod.sandbox} <= snapshots(node, "imagecached")
        assert not {pod.container, pod.sandbox} & snapshots(node, "overlayfs")
    assert await cri.stats() == {}
    await cri.remove_image(shell)
    assert await cri.image(shell) is None
    node.containerd.collect_garbage()
    assert not {pod.container, pod.sandbox} & snapshots(node, "imagecached")


async def test_a_prepared_image_starts_without_the_registry(
    demo: Registry, node: Node, cri: Cri, hello: str
) -> None:
    """IfNotPresent: present, and pinned where containerd knows of pins; the registry is not asked at all."""
    with demo.requests("demo/hello") as requests:
        await say_hello(cri, hello, node.handler)
    assert requests == []
    image = await cri.image(hello)
    assert image is not None
    assert image.pinned is (version(node) >= (1, 7))
    assert [each.pinned for each in await cri.images() if each.id == image.id] == [image.pinned]
    assert bool(image.repo_tags) is not bool(node.handler)


async def test_always_asks_for_the_manifest_alone(demo: Registry, node: Node, cri: Cri, hello: str) -> None:
    """No layer of a prepared image is fetched, and none unpacked: its chain is ours."""
    before = node.daemon.ask("get", "layers")
    with demo.requests("demo/hello") as requests:
        await cri.pull(hello, handler=node.handler)
    assert [request.split()[0] for request in requests] == ["HEAD"]
    assert "/manifests/" in requests[0]
    assert node.daemon.ask("get", "layers") == before
    await say_hello(cri, hello, node.handler)


async def test_an_ordinary_pod_of_the_same_image(demo: Registry, node: Node, cri: Cri, hello: str) -> None:
    """It names the tag. In handler mode it lies in the stock snapshotter, pulled as ever; none is harmed."""
    tag = demo.reference(HELLO)
    with demo.requests("demo/hello") as requests:
        async with cri.pod(tag) as pod:
            assert await pod.execute("hello") == "Hello, world!\n"
            where = "overlayfs" if node.handler else "imagecached"
            assert pod.container in snapshots(node, where)
    assert any("/blobs/" in request for request in requests) is bool(node.handler)
    with demo.requests("demo/hello") as requests:
        await say_hello(cri, hello, node.handler)
    assert requests == []


async def test_statistics_name_disks_that_exist(demo: Registry, node: Node, cri: Cri, hello: str) -> None:
    """Of our pod, of an ordinary one beside it, and of the node: the kubelet looks each mount point up.

    What a pod of the handler writes is not counted by containerd, nor can 1.6.20 be told where our disk is.
    """
    shell = demo.reference(SHELL)
    write = ("sh", "-c", "dd if=/dev/zero of=/file bs=1M count=5")
    async with cri.pod(hello, handler=node.handler) as ours, cri.pod(shell) as ordinary:
        await ordinary.execute(*write)
        await_counted(node, ordinary)
        stats = await cri.stats()
        assert {ours.container, ordinary.container} <= set(stats)
        disks = [stats[pod.container].writable_layer.fs_id.mountpoint for pod in (ours, ordinary)]
        disks += [each.fs_id.mountpoint for each in (await cri.call("ImageFsInfo")).image_filesystems]
    assert "" not in disks
    missing = {disk for disk in disks if not Path(disk).is_dir()}
    if version(node) < (1, 7):
        assert missing == {f"{node.containerd.directory}/root/io.containerd.snapshotter.v1.imagecached"}
    else:
        assert missing == set()
        # 1.7 names the disk of the default snapshotter, whoever has the container.
        assert (str(node.daemon.root) in disks) is (version(node) >= (2, 0) or not node.handler)


def await_counted(node: Node, pod: Pod) -> None:
    """Wait until containerd, which walks the snapshots every second here, has seen the 5 MiB."""
    metrics = ("--namespace", "k8s.io", "snapshots", "--snapshotter")
    where = "overlayfs" if node.handler else "imagecached"

    def counted() -> bool:
        usage = node.containerd.ctr(*metrics, where, "usage", "-b", pod.container).splitlines()[1].split()
        return int(usage[1]) > 5 << 20

    await_true(counted, what="the usage", deadline_seconds=20, alive=lambda: True)


async def test_what_doctor_says_of_such_a_node(node: Node, hello: str) -> None:
    """All is well with a containerd of today; 1.6.20 has no pins and names a disk that does not exist."""
    found = {each["name"]: each["verdict"] for each in examined(node)}
    old = version(node) < (1, 7)
    assert found == {
        "containerd": "ok",
        "settings": "ok",
        "plugin": "ok",
        "socket-order": "ok",
        "cri": "ok",
        "mode": "ok",
        "pause": "ok",
        "pins": "warn" if old else "ok",
        "statistics": "fail" if old else "ok",
    }


def examined(node: Node) -> list[dict[str, Any]]:
    """The findings about containerd."""
    diagnosis = json.loads(node.daemon.ctl("-o", "json", "doctor", check=False).stdout)
    findings: list[dict[str, Any]] = diagnosis["findings"]
    names = [each["name"] for each in findings]
    begin = names.index("containerd")
    return findings[begin : names.index("statistics") + 1]


async def test_garbage_collection_takes_nothing_of_ours(
    demo: Registry, node: Node, cri: Cri, hello: str
) -> None:
    """Snapshots that containerd does not know are swept, the chains of registered images stay."""
    node.daemon.ctl("pull", demo.reference(SHELL))
    layers = node.daemon.ask("get", "layers")
    for _ in range(2):
        node.containerd.collect_garbage()
    assert node.daemon.ask("get", "layers") == layers
    with demo.requests("demo/hello") as requests:
        await say_hello(cri, hello, node.handler)
    assert requests == []


async def test_the_daemon_dies_under_a_pod(node: Node, cri: Cri, hello: str) -> None:
    """The pod goes on as if nothing was; new ones start when the daemon is back."""
    async with cri.pod(hello, handler=node.handler) as pod:
        node.daemon.stop(signal.SIGKILL)
        assert await pod.execute("hello") == "Hello, world!\n"
        node.daemon.start()
        assert await pod.execute("hello") == "Hello, world!\n"
    # containerd asks a server that was silent again after a while, up to 3 s.
    await patiently(lambda: say_hello(cri, hello, node.handler))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
async def test_containerd_starts_again(demo: Registry, node: Node, hello: str, number: int) -> None:
    """Pods outlive it; it still knows the image and its pin, and asks the registry nothing."""
    async with node.cri() as cri:
        pod = await cri.start_pod(hello, ["sleep", "1000"], handler=node.handler)
    node.containerd.stop(number)
    node.containerd.start()
    async with node.cri() as cri:
        assert await pod.of(cri).execute("hello") == "Hello, world!\n"
        await pod.of(cri).remove()
        with demo.requests("demo/hello") as requests:
            await say_hello(cri, hello, node.handler)
        assert requests == []
        image = await cri.image(hello)
        assert image is not None
        assert image.pinned is (version(node) >= (1, 7))


@pytest.mark.parametrize("kind", KINDS)
async def test_containerd_is_there_before_the_daemon(demo: Registry, pause: str, kind: Kind) -> None:
    """A socket at which nobody answers yet is enough for it to start and serve; then pods are ours."""
    shell = demo.reference(SHELL)
    with serve_node(demo, pause, kind.mode, kind.programs, containerd_first=True) as node:
        async with node.cri() as cri:
            assert await cri.images() == []
            node.daemon.start()
            # containerd tries again after a while where a server was silent.
            pod = await patiently(lambda: cri.start_pod(shell, ["sleep", "1000"], handler=node.handler))
            assert pod.container in snapshots(node, "imagecached")


@pytest.mark.containerd2
@pytest.mark.parametrize("mode", ["handler", "default"])
async def test_a_node_that_pulls_without_the_transfer_service(demo: Registry, pause: str, mode: Mode) -> None:
    """Its own settings have turned that off: CRI pulls, and still only the manifest of what we have."""
    hello = demo.reference(HELLO)
    with serve_node(demo, pause, mode, CONTAINERD2, images={"max_concurrent_downloads": 2}) as node:
        async with node.cri() as cri:
            await cri.pull(hello, handler=node.handler)
            assert len(node.daemon.ask("get", "layers")["layers"]) == 3
            with demo.requests("demo/hello") as requests:
                await cri.pull(hello, handler=node.handler)
            assert [request.split()[0] for request in requests] == ["HEAD"]
            await say_hello(cri, hello, node.handler)
        log = node.containerd.log.read_text()
        assert "Falling back to local image pull" in log
