"""Prepared images become known to a real containerd, stay known whatever happens, and are forgotten."""

from __future__ import annotations

import asyncio
import itertools
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from grpclib import GRPCError

from imagecached.containerd import Containerd
from imagecached.containerd.held import bound
from imagecached.events import EventLog
from imagecached.registration import Sandbox
from imagecached.registration.sandbox import Pull
from imagecached.store import Store, StorePolicy
from tests.support import tars
from tests.support.containerd import CONTAINERD2, STABLE, version_of
from tests.support.demo import HELLO, SHELL, base_layer, push_demo
from tests.support.images import ImageFolder, host_platform
from tests.support.nodes import Node, push_pause
from tests.support.processes import await_true
from tests.support.registered import await_event, await_state, serve_registered
from tests.support.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.containerd, pytest.mark.timeout(180)]

VERSIONS = [
    pytest.param(STABLE, id="1"),
    pytest.param(CONTAINERD2, id="2", marks=pytest.mark.containerd2),
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


@pytest.fixture(params=VERSIONS)
def node(demo: Registry, pause: str, request: pytest.FixtureRequest) -> Iterator[Node]:
    """A daemon and a containerd whose default snapshotter it is."""
    with serve_registered(demo, pause, "default", request.param) as served:
        yield served


def names(node: Node) -> set[str]:
    """The names of containerd's image records for the kubelet."""
    listed = node.containerd.ctr("--namespace", "k8s.io", "images", "list", "--quiet").split()
    return set(listed)


def await_names(node: Node, wanted: set[str]) -> None:
    """Wait until containerd has these records."""
    await_true(lambda: wanted <= names(node), what=f"{wanted}", deadline_seconds=20, alive=lambda: True)


def run(node: Node, reference: str, *command: str) -> str:
    """What a container of an image that containerd has says."""
    arguments = ("run", "--rm", "--snapshotter", "imagecached", reference, f"test-{abs(hash(command)):x}")
    return node.containerd.ctr("--namespace", "k8s.io", *arguments, *command)


async def test_a_prepared_image_is_there_for_the_kubelet(demo: Registry, node: Node, pause: str) -> None:
    """Nobody asks the registry for anything: not the start of a container, not that of a pod."""
    hello = demo.reference(HELLO)
    node.daemon.ctl("pull", hello, pause)
    state = await_state(node.daemon, hello)
    await_state(node.daemon, pause)
    with demo.requests("demo/hello") as requests:
        assert run(node, hello) == "Hello, world!\n"
        async with node.cri() as cri, cri.pod(hello, handler=node.handler) as pod:
            assert await pod.execute("hello") == "Hello, world!\n"
            image = await cri.image(hello)
            assert image is not None
            assert image.pinned == state["pinned"] == (version_of(node.containerd.programs) >= (1, 7))
    assert requests == []


async def test_an_image_of_many_platforms(demo: Registry, node: Node, pause: str, tmp_path: Path) -> None:
    """By tag, by the index's digest and by the manifest's: each is there for the kubelet without a request.
    Nothing but our snapshotter can start it, as long as its layers are not here.
    """
    folder, reference = ImageFolder(tmp_path / "many"), demo.reference("test/many:1")
    here = folder.image([base_layer(folder)], {"Env": ["PATH=/usr/bin"]})
    foreign = {"os": "linux", "architecture": "s390x"}
    there = folder.image([folder.layer(tars.tar_of([tars.file("x", b"x")]))], platform=foreign)
    folder.push(folder.index([(foreign, there), (host_platform(), here)]), reference)
    node.daemon.ctl("pull", reference, pause)
    await_state(node.daemon, reference)
    await_state(node.daemon, pause)
    described = node.daemon.ask("describe", reference)
    digests = {described["target_digest"], described["image"]["manifest_digest"]}
    assert len(digests) == 2
    repository = reference.rpartition(":")[0]
    with demo.requests("test/many") as requests:
        async with node.cri() as cri:
            for name in (reference, *(f"{repository}@{digest}" for digest in digests)):
                async with cri.pod(name, handler=node.handler) as pod:
                    assert await pod.execute("echo", "here") == "here\n"
    assert requests == []
    containerd = Containerd(node.containerd.socket)
    held = await bound(containerd.namespace("k8s.io"))
    assert held[reference] == {"imagecached"}
    node.daemon.ctl("blobs", "fetch", reference)
    assert reference not in await bound(containerd.namespace("k8s.io"))
    await containerd.close()


async def test_the_layers_as_the_registry_has_them(demo: Registry, node: Node, tmp_path: Path) -> None:
    """A registered image cannot be exported until its blobs were fetched, which is done once."""
    shell = demo.reference(SHELL)
    node.daemon.ctl("pull", shell)
    await_state(node.daemon, shell)
    export = ("--namespace", "k8s.io", "images", "export", tmp_path / "shell.tar", shell)
    with pytest.raises(subprocess.CalledProcessError):
        node.containerd.ctr(*export)
    [fetched] = node.daemon.ask("blobs", "fetch", shell)["images"]
    assert fetched["bytes_downloaded"] == sum(layer["size_bytes"] for layer in fetched["layers"])
    node.containerd.collect_garbage()
    node.containerd.ctr(*export)
    with demo.requests("demo/shell") as requests:
        [again] = node.daemon.ask("blobs", "fetch", shell)["images"]
    assert requests == []
    assert (again["bytes_downloaded"], again["bytes_reused"]) == (0, fetched["bytes_downloaded"])


@pytest.mark.containerd2
async def test_a_pod_of_another_snapshotter_that_names_the_digest(demo: Registry, pause: str) -> None:
    """The kubelet finds the image present and its container fails; we bring the layers, and it starts."""
    hello = demo.reference(HELLO)
    with serve_registered(demo, pause, "handler", CONTAINERD2) as node:
        node.daemon.ctl("pull", hello)
        state = await_state(node.daemon, hello)
        assert state["pinned"]
        exactly = by_digest(node, hello)
        assert hello not in names(node)
        async with node.cri() as cri:
            assert await cri.image(exactly) is not None
            with pytest.raises(GRPCError, match="not found"):
                await cri.start_pod(exactly, ["sleep", "1000"])
            await_event(node.daemon, "blobs_fetched", hello)
            async with cri.pod(exactly) as pod:
                assert await pod.execute("hello") == "Hello, world!\n"


async def test_a_container_of_another_snapshotter(demo: Registry, node: Node) -> None:
    """The same for ``ctr run`` on both versions: what it misses comes, and the next try succeeds."""
    shell = demo.reference(SHELL)
    node.daemon.ctl("pull", shell)
    await_state(node.daemon, shell)
    arguments = ("--namespace", "k8s.io", "run", "--rm", "--snapshotter", "overlayfs", shell)
    numbers = itertools.count()

    def noticed() -> bool:
        """Tries once more, as a kubelet does: what fails before the daemon hears of events goes unheard."""
        with suppress(subprocess.CalledProcessError):
            node.containerd.ctr(*arguments, f"test-stuck-{next(numbers)}")
        return "blobs_missing" in node.daemon.ctl("-o", "json", "events").stdout

    await_true(noticed, what="blobs_missing", deadline_seconds=30, alive=lambda: True)
    await_event(node.daemon, "blobs_fetched", shell)
    assert node.containerd.ctr(*arguments, "test-stuck") == "A shell from a prepared snapshot\n"


@pytest.mark.containerd2
async def test_both_kinds_of_pods_of_one_image(demo: Registry, pause: str) -> None:
    """A pod of the handler starts by digest without a request; an ordinary one finds no tag and pulls; both
    run, and the handler's next pod asks nothing again. What ``crictl rmi`` removes comes back.
    """
    hello = demo.reference(HELLO)
    with serve_registered(demo, pause, "handler", CONTAINERD2) as node:
        node.daemon.ctl("pull", hello)
        await_state(node.daemon, hello)
        exactly, known = by_digest(node, hello), names(node)
        async with node.cri() as cri:
            for _ in range(2):
                with demo.requests("demo/hello") as requests:
                    async with cri.pod(exactly, handler=node.handler) as pod:
                        assert await pod.execute("hello") == "Hello, world!\n"
                assert requests == []
                with demo.requests("demo/hello") as requests:
                    async with cri.pod(hello) as pod:
                        assert await pod.execute("hello") == "Hello, world!\n"
                await cri.remove_image(exactly)
                await_names(node, known)
                while await cri.image(exactly) is None:  # it hears of records a little later
                    await asyncio.sleep(0)
            image = await cri.image(exactly)
            assert image is not None
            assert image.pinned


def test_a_container_with_a_user_namespace(demo: Registry, node: Node) -> None:
    """containerd changes the owners for it, in a snapshot on top of ours."""
    shell, containerd = demo.reference(SHELL), node.containerd
    node.daemon.ctl("pull", shell)
    await_state(node.daemon, shell)
    for folder in (containerd.directory, *containerd.directory.glob("state/**/")):
        folder.chmod(0o711)  # else the namespace's root may not even look
    mapped = ["--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"]
    if version_of(containerd.programs) >= (2, 0):
        mapped.append("--remap-labels")  # as CRI does it for pods with hostUsers: false
    say = "cat /proc/self/uid_map; stat -c %u /bin/busybox; touch /new; stat -c %u /new"
    begin = ("run", "--rm", *mapped, "--snapshotter", "imagecached", shell, "mapped", "/bin/busybox")
    said = containerd.ctr("--namespace", "k8s.io", *begin, "sh", "-c", say)
    assert said.split() == ["0", "100000", "65536", "0", "0"]


def test_both_end_at_once(demo: Registry, node: Node) -> None:
    """As when a node shuts down: the daemon ends in order, though containerd goes in the middle of that."""
    hello = demo.reference(HELLO)
    node.daemon.ctl("pull", hello)
    await_state(node.daemon, hello)
    process, node.daemon.process = node.daemon.process, None
    assert process is not None
    process.send_signal(signal.SIGTERM)
    node.containerd.stop(signal.SIGKILL)
    assert process.wait(20) == 0


def test_an_image_of_another_platform(demo: Registry, pause: str, tmp_path: Path) -> None:
    """It is in the store for whoever wants it there, and containerd is not told."""
    folder, reference = ImageFolder(tmp_path / "foreign"), demo.reference("test/foreign:1")
    layer = folder.layer(tars.tar_of([tars.file("data", b"x")]))
    folder.push(folder.image([layer], platform={"os": "linux", "architecture": "s390x"}), reference)
    with serve_registered(demo, pause, "default", STABLE) as node:
        node.daemon.ctl("pull", "--platform", "linux/s390x", reference)
        assert "linux/s390x" in await_state(node.daemon, reference, "failed")["reason"]
        assert names(node) == set()


def test_a_container_that_waits_for_a_common_base(
    demo: Registry, pause: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Many images have the layer that is missed: it alone is brought, and by the next tries what is above it
    in the one image that is waited for, not in the others.
    """
    folder = ImageFolder(tmp_path_factory.mktemp("based"))
    base = base_layer(folder)
    based = [demo.reference(f"test/based:{number}") for number in range(5)]
    for number, reference in enumerate(based):
        own = folder.layer(tars.tar_of([tars.file("own", b"%d" % number)]))
        folder.push(folder.image([base, own], {"Cmd": ["/bin/cat", "/own"]}), reference)
    with serve_registered(demo, pause, "default", STABLE) as node:
        node.daemon.ctl("pull", *based)
        for reference in based:
            await_state(node.daemon, reference)
        run = ("--namespace", "k8s.io", "run", "--rm", "--snapshotter", "overlayfs", based[3])
        for number in range(2):
            with pytest.raises(subprocess.CalledProcessError):
                node.containerd.ctr(*run, f"test-base-{number}")
            await_event(node.daemon, "blobs_fetched", (based[0], based[3])[number])
        assert node.containerd.ctr(*run, "test-base-2") == "3"
        listed = node.containerd.ctr("--namespace", "k8s.io", "content", "list", "--quiet").split()
        owns = [node.daemon.ask("describe", each)["layers"][1]["blob_digest"] for each in based]
        assert [digest in listed for digest in owns] == [number == 3 for number in range(5)]


@pytest.mark.containerd2
async def test_the_pause_image_of_the_handler(demo: Registry, pause: str) -> None:
    """Found by the sandboxes of ordinary pods, by the digest that containerd has; kept, pinned, registered;
    containerd's own record of the tag stays as it is.
    """
    shell = demo.reference(SHELL)
    with serve_registered(demo, pause, "handler", CONTAINERD2, check_interval_seconds=1) as node:
        async with node.cri() as cri:
            async with cri.pod(shell):
                await_event(node.daemon, "sandbox_image", by_digest(node, pause))
            before = record(node, pause)
            await_state(node.daemon, by_digest(node, pause))
            assert record(node, pause) == before
            node.daemon.ctl("pull", shell)
            await_state(node.daemon, shell)
            with demo.requests("test/pause") as requests:
                async with cri.pod(by_digest(node, shell), handler=node.handler) as pod:
                    assert await pod.execute("echo", "here") == "here\n"
            assert requests == []
        assert node.daemon.ctl("rm", by_digest(node, pause), check=False).returncode == 1


async def test_which_image_is_the_pause_image(demo: Registry, node: Node, pause: str, tmp_path: Path) -> None:
    """containerd 1 says it, containerd 2 shows it by the sandboxes that run."""
    containerd, store = Containerd(node.containerd.socket), await Store.open(tmp_path / "s", StorePolicy())

    def pull(name: str) -> Pull:
        raise AssertionError(f"nobody asked for {name}")

    sandbox = Sandbox(containerd, store, pull, name="", look_seconds=1, events=EventLog())
    async with node.cri() as cri:
        assert await sandbox.find() == ("" if node.containerd.programs else pause)
        async with cri.pod(demo.reference(SHELL), handler=node.handler):
            assert await sandbox.find() == pause
    await containerd.close()
    await store.close()


def record(node: Node, name: str) -> list[str]:
    """Target and labels of an image record."""
    lines = node.containerd.ctr("--namespace", "k8s.io", "images", "list", f"name=={name}").splitlines()
    return [line for line in lines if line.startswith(name)]


def by_digest(node: Node, reference: str) -> str:
    """The same image by the digest of containerd's record, or of ours."""
    found = record(node, reference)
    digest = (
        next(word for word in found[0].split() if word.startswith("sha256:"))
        if found
        else node.daemon.ask("describe", reference)["target_digest"]
    )
    return f"{reference.rpartition(':')[0]}@{digest}"


def test_the_budget_holds_for_registered_images(
    demo: Registry, pause: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What only containerd knows goes, least recently used first, when there is no room for a pull."""
    folder = ImageFolder(tmp_path_factory.mktemp("big"))
    big = [demo.reference(f"test/big:{number}") for number in range(3)]
    for number, reference in enumerate(big):
        layer = folder.layer(tars.tar_of([tars.file("data", bytes([number]) * (8 << 20))]), "none")
        folder.push(folder.image([layer]), reference)
    store = {
        "quota_bytes": 20 << 20,
        "free_bytes": 0,
        "free_percent": 0,
        "gc_high_percent": 100,
        "gc_low_percent": 100,
    }
    with serve_registered(demo, pause, "default", STABLE, {"store": store}) as node:
        for reference in big:
            node.daemon.ctl("pull", reference)
            await_state(node.daemon, reference)
        assert [image["name"] for image in node.daemon.ask("get", "images")["images"]] == big[1:]
        assert not any(name.startswith(big[0]) for name in names(node))
