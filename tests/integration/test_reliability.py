"""A node under accidents: killed daemons, reboots, damaged files, crowds; what runs goes on."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from grpclib import GRPCError, Status
from grpclib.client import Channel

from imagecached.oci.digest import Digest
from tests.fakes.registry import FakeRegistry
from tests.support import tars
from tests.support.containerd import CONTAINERD2, STABLE
from tests.support.cri import Cri, Pod
from tests.support.demo import HELLO, SHELL, base_layer, push_demo
from tests.support.images import ImageFolder
from tests.support.mounts import mounted_below, unmount_below
from tests.support.nodes import Node, push_pause
from tests.support.processes import NotStarted, await_true
from tests.support.registered import await_state, serve_registered
from tests.support.registry import Registry
from tests.support.snapshots import Snapshots

pytestmark = [pytest.mark.root, pytest.mark.containerd, pytest.mark.timeout(180)]

BACK_OFF_SECONDS = 15  # containerd asks a server that was silent again after up to 3 s
IMAGES = 16

BOTH = [
    pytest.param(STABLE, id="1"),
    pytest.param(CONTAINERD2, id="2", marks=pytest.mark.containerd2),
]
NEW = pytest.mark.parametrize("node", BOTH[1:], indirect=True)
"""For what takes long and does not depend on the version."""

WRITE_AND_READ = """
n=0
while :; do
  n=$((n + 1))
  echo $n >/written && [ "$(cat /written)" = $n ] || echo "cannot write"
  cat /usr/bin/busybox >/dev/null || echo "cannot read"
done
"""


@pytest.fixture(scope="module")
def demo(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """The registry with both demo images, and sixteen that share their base."""
    push_demo(registry, tmp_path_factory.mktemp("demo"))
    folder = ImageFolder(tmp_path_factory.mktemp("crowd"))
    base = base_layer(folder)
    for number in range(IMAGES):
        own = folder.layer(tars.tar(tars.file("etc/number", f"{number}\n".encode())))
        folder.push(folder.image([base, own]), registry.reference(f"crowd/{number}:1"))
    return registry


@pytest.fixture(scope="module")
def pause(demo: Registry, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image of sandboxes."""
    return push_pause(demo, tmp_path_factory.mktemp("pause"))


@pytest.fixture(params=BOTH)
def node(demo: Registry, pause: str, request: pytest.FixtureRequest) -> Iterator[Node]:
    """A daemon that tells containerd of its images; its snapshots are the default, all pods use them."""
    with serve_registered(demo, pause, "default", request.param) as served:
        yield served


@pytest.fixture
async def cri(node: Node) -> AsyncIterator[Cri]:
    """The kubelet's view of it."""
    async with node.cri() as connection:
        yield connection


@dataclass(frozen=True)
class Counts:
    """What must be after everything is over as it was before."""

    mounts: int
    snapshots: frozenset[str]
    leases: frozenset[str]
    directories: int
    descriptors: int

    @classmethod
    def of(cls, node: Node) -> Counts:
        node.containerd.collect_garbage()
        node.daemon.ctl("gc")
        assert node.daemon.process is not None
        k8s = partial(node.containerd.ctr, "--namespace", "k8s.io")
        snapshots = k8s("snapshots", "--snapshotter", "imagecached", "list").splitlines()[1:]
        return cls(
            mounts=len(mounted_below(node.daemon.root)),
            snapshots=frozenset(line.split()[0] for line in snapshots),
            leases=frozenset(k8s("leases", "list", "--quiet").split()),
            directories=len(list((node.daemon.root / "s").iterdir())),
            descriptors=len(list(Path(f"/proc/{node.daemon.process.pid}/fd").iterdir())),
        )


def counts_at_rest(node: Node) -> Counts:
    """Once nothing is left of containers that are gone: their mounts end a moment after them."""
    await_true(lambda: Counts.of(node).directories == 0, what="rest", deadline_seconds=15, alive=lambda: True)
    return Counts.of(node)


def await_counts(node: Node, wanted: Counts) -> None:
    """They come to be as they were; there may be less descriptors: idle connections are closed some day."""

    def as_before() -> bool:
        now = Counts.of(node)
        same = replace(now, descriptors=wanted.descriptors) == wanted
        return same and now.descriptors <= wanted.descriptors

    try:
        await_true(as_before, what="what was before", deadline_seconds=15, alive=lambda: True)
    except NotStarted as error:
        error.add_note(f"{wanted}, now {Counts.of(node)}")
        raise


def prepare(node: Node, *references: str) -> None:
    """Have images ready and known to containerd."""
    node.daemon.ctl("pull", *references)
    for reference in references:
        await_state(node.daemon, reference)


async def in_thread(function: Callable[..., object], *arguments: Any) -> None:
    """Let the loop turn while a process is started or stopped."""
    await asyncio.get_running_loop().run_in_executor(None, partial(function, *arguments))


async def soon(attempt: Callable[[], Awaitable[Pod]]) -> Pod:
    """The pod that the kubelet gets by trying again, within containerd's back-off."""
    async with asyncio.timeout(BACK_OFF_SECONDS):
        while True:
            try:
                return await attempt()
            except GRPCError as error:
                if error.status is not Status.UNAVAILABLE:
                    raise


@asynccontextmanager
async def executing(pods: list[Pod]) -> AsyncIterator[list[str]]:
    """Execute a command in one pod after the other during the body; what they said."""
    said: list[str] = []
    stop = asyncio.Event()

    async def execute() -> None:
        while not stop.is_set():
            said.extend([await pod.execute("cat", "/etc/passwd") for pod in pods])

    async with asyncio.TaskGroup() as group:
        group.create_task(execute())
        try:
            yield said
        finally:
            stop.set()


@NEW
async def test_killed_and_restarted_again_and_again(demo: Registry, node: Node, cri: Cri, pause: str) -> None:
    """Containers that read, write and execute notice nothing; new ones start as soon as it is back; in the
    end nothing is left. A pull that was under way is finished by whoever asks again.
    """
    shell, hello = demo.reference(SHELL), demo.reference(HELLO)
    prepare(node, shell, pause)
    async with cri.pod(shell, handler=node.handler):
        pass
    before = counts_at_rest(node)
    start = partial(cri.start_pod, shell, handler=node.handler)
    pods = [await start(["sh", "-c", WRITE_AND_READ]) for _ in range(2)]
    async with executing(pods) as said:
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
            async with asyncio.TaskGroup() as group:
                pull = partial(node.daemon.ctl, "pull", hello, check=False)
                group.create_task(in_thread(pull))
                group.create_task(in_thread(node.daemon.stop, number))
            count = len(said)
            await in_thread(node.daemon.start)
            new = await soon(partial(start, ["sleep", "1000"]))
            assert await new.execute("echo", "here") == "here\n"
            await new.remove()
            assert len(said) > count
    for pod in pods:
        assert pod.log() == ""
        await pod.remove()
    await in_thread(node.daemon.ctl, "pull", hello)
    await in_thread(node.daemon.ctl, "rm", hello)
    await_counts(node, replace(before, descriptors=Counts.of(node).descriptors))  # it is another process


def test_the_machine_is_switched_off_and_on(demo: Registry, node: Node) -> None:
    """Every mount is gone and no process is left: a container starts again with what it had written, and so
    does a new one, without a request.
    """
    shell, container = demo.reference(SHELL), "test-reboot"
    prepare(node, shell)
    k8s = partial(node.containerd.ctr, "--namespace", "k8s.io")
    ours = ("--snapshotter", "imagecached", shell)
    inside = ("tasks", "exec", "--exec-id", "e", container)
    k8s("run", "--detach", *ours, container, "sleep", "1000")
    k8s(*inside, "sh", "-c", "echo kept >/kept")
    assert k8s(*inside, "cat", "/kept") == "kept\n"
    node.containerd.end_containers()
    node.containerd.stop()
    node.daemon.stop()
    unmount_below(node.daemon.root)
    unmount_below(node.containerd.directory)
    shutil.rmtree(node.containerd.directory / "state")
    with demo.requests() as requests:
        node.daemon.start()
        node.containerd.start()
        k8s("tasks", "start", "--detach", container)
        assert k8s(*inside, "cat", "/kept") == "kept\n"
        assert k8s("run", "--rm", *ours, f"{container}-2", "echo", "new") == "new\n"
    assert requests == []
    node.containerd.end_containers()
    for each in (container, f"{container}-2"):
        with suppress(subprocess.CalledProcessError):
            k8s("containers", "delete", each)


@pytest.mark.containerd2
async def test_it_starts_with_what_it_has(tmp_path: Path) -> None:
    """A login that is refused now, one layer file lost and another cut off, and in the end no registry at
    all: everything else is served, and it is said what is wrong.
    """
    folder, login = ImageFolder(tmp_path), tmp_path / "auth.json"
    base = gzip.decompress(folder.path(base_layer(folder).blob).read_bytes())
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(FakeRegistry())
        login.write_text(json.dumps({"auths": {registry.address: {"auth": "dXNlcjpwYXNz"}}}))
        registry.challenge, registry.authorizations = 'Basic realm="x"', {"Basic dXNlcjpwYXNz"}
        own = {name: tars.tar(tars.file(name, b"x" * 5000)) for name in ("whole", "lost", "torn", "other")}
        settings = {"Cmd": ["/usr/bin/sleep", "1000"], "Env": ["PATH=/usr/bin"]}
        for name, tar in own.items():
            registry.put_image(name, "1", [base, tar], config={"config": settings})
        whole, lost, torn, other = (f"{registry.address}/{name}:1" for name in own)
        auth = {"auth_files": [str(login)], "attempts": 1}
        node = stack.enter_context(
            serve_registered(registry, whole, "default", CONTAINERD2, sections={"registry": auth})
        )
        await in_thread(prepare, node, whole, lost, torn)
        node.daemon.stop()
        registry.authorizations.clear()
        layer_file(node, own["lost"]).unlink()
        damaged = layer_file(node, own["torn"])
        damaged.write_bytes(damaged.read_bytes()[:4096])
        await in_thread(node.daemon.start)
        cri = await stack.enter_async_context(node.cri())
        start = partial(cri.start_pod, whole, ["sleep", "1000"])
        await (await soon(start)).remove()
        images = {image["name"]: image["damaged"] for image in node.daemon.ask("get", "images")["images"]}
        assert images == {whole: False, lost: True, torn: False}
        with pytest.raises(GRPCError, match=Digest.of(own["torn"]).hex):
            await cri.start_pod(torn, ["sleep", "1000"])
        refused: list[int] = []
        await in_thread(lambda: refused.append(node.daemon.ctl("pull", other, check=False).returncode))
        assert refused == [4]
        await registry.__aexit__()
        node.daemon.stop(signal.SIGKILL)
        await in_thread(node.daemon.start)
        await (await soon(start)).remove()


def layer_file(node: Node, tar: bytes) -> Path:
    """Where the daemon keeps a layer."""
    digest = Digest.of(tar)
    return node.daemon.root / "layers/sha256" / digest.hex[:2] / f"{digest.hex}.erofs"


@NEW
async def test_a_crowd_of_containers(demo: Registry, node: Node, cri: Cri, pause: str) -> None:
    """Sixty-four of sixteen images begin at once, every fourth is given up in the middle; what had to start
    did, each sees its own image, and nothing of them is left.
    """
    references = [demo.reference(f"crowd/{number}:1") for number in range(IMAGES)]
    prepare(node, *references, pause)
    async with cri.pod(references[0], handler=node.handler):
        pass
    before = counts_at_rest(node)
    async with cri.pod(references[0], "sleep", "1000", handler=node.handler) as pod:
        started: list[int] = []

        async def start(number: int) -> None:
            one = Pod(cri, pod.sandbox, pod.config)
            await one.start(references[number % IMAGES], ["sleep", "1000"], name=f"c{number}")
            assert await one.execute("cat", "/etc/number") == f"{number % IMAGES}\n"
            started.append(number)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(start(number)) for number in range(4 * IMAGES)]
            while len(started) < IMAGES:
                await asyncio.sleep(0.01)
            given_up = {number for number in range(0, len(tasks), 4) if tasks[number].cancel()}
        assert given_up
        assert set(started) >= set(range(len(tasks))) - given_up
    await_counts(node, before)


def own_pull(node: Node, reference: str) -> None:
    """Let containerd fetch and unpack an image by itself into our snapshots."""
    ours = ("--snapshotter", "imagecached", reference)
    node.containerd.ctr("images", "pull", "--hosts-dir", node.containerd.certs, *ours)


def own_run(node: Node, reference: str, *command: str) -> str:
    """What a container of such an image says."""
    name = f"test-{os.urandom(4).hex()}"
    return node.containerd.ctr("run", "--rm", "--snapshotter", "imagecached", reference, name, *command)


@pytest.mark.parametrize("programs", BOTH)
def test_containerd_begins_anew(demo: Registry, pause: str, programs: Path | None) -> None:
    """Its root is wiped under a living store, and the same sequence numbers come again for other images: each
    name shows its new content; what was prepared is known again.
    """
    ordinary = {"snapshotter": {"pull_on_miss": False}}
    hello, shell = demo.reference(HELLO), demo.reference(SHELL)
    with serve_registered(demo, pause, "default", programs, ordinary) as node:
        prepare(node, shell)
        own_pull(node, demo.reference("crowd/3:1"))
        node.containerd.stop()
        for part in ("root", "state"):
            subprocess.run(["rm", "-rf", node.containerd.directory / part], check=True)
        node.containerd.start()
        own_pull(node, demo.reference("crowd/4:1"))
        assert own_run(node, demo.reference("crowd/4:1"), "cat", "/etc/number") == "4\n"
        own_pull(node, hello)
        assert own_run(node, hello) == "Hello, world!\n"
        await_state(node.daemon, shell)
        own_pull(node, shell)
        assert own_run(node, shell, "echo", "here") == "here\n"
        assert "containerd began anew" in node.daemon.log.read_text()


def test_the_store_begins_anew(demo: Registry, pause: str) -> None:
    """It is wiped under a living containerd: what was prepared is prepared again; an image that containerd
    had unpacked itself is there again when it is removed and pulled.
    """
    ordinary = {"snapshotter": {"pull_on_miss": False}}
    shell, own = demo.reference(SHELL), demo.reference("crowd/5:1")
    with serve_registered(demo, pause, "default", STABLE, ordinary) as node:
        prepare(node, shell)
        own_pull(node, own)
        node.daemon.stop()
        shutil.rmtree(node.daemon.root)
        node.daemon.start()
        with pytest.raises(subprocess.CalledProcessError):
            own_run(node, own, "cat", "/etc/number")
        node.containerd.ctr("images", "remove", "--sync", own)
        own_pull(node, own)
        assert own_run(node, own, "cat", "/etc/number") == "5\n"
        prepare(node, shell)
        k8s = ("--namespace", "k8s.io", "run", "--rm", "--snapshotter", "imagecached", shell, "test-anew")
        assert node.containerd.ctr(*k8s, "echo", "here") == "here\n"


async def test_garbage_collection_is_forced(demo: Registry, node: Node) -> None:
    """What containerd does not know is swept; what is prepared stays, known to it or not; so does what it
    unpacked and still wants.
    """
    known, unknown, own, removed = (demo.reference(f"crowd/{number}:1") for number in (6, 7, 8, 9))
    prepare(node, known)
    own_pull(node, own)
    own_pull(node, removed)
    node.daemon.ctl("pull", unknown)
    channel = Channel(path=str(node.daemon.directory / "snapshots.sock"))
    direct = Snapshots(channel)
    await direct.prepare("stray")
    # containerd sweeps a snapshotter whose snapshots it has just collected.
    node.containerd.ctr("images", "remove", "--sync", removed)
    assert "stray" not in await direct.names()
    channel.close()
    assert own_run(node, own, "cat", "/etc/number") == "8\n"
    k8s = ("--namespace", "k8s.io", "run", "--rm", "--snapshotter", "imagecached", known, "test-known")
    assert node.containerd.ctr(*k8s, "cat", "/etc/number") == "6\n"
    assert node.daemon.ask("get", "images", unknown)["damaged"] is False
