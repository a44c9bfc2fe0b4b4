"""Images that containerd pulls and the daemon does not hold: it fetches them, or leaves it to containerd."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from grpclib import GRPCError
from grpclib.exceptions import StreamTerminatedError

from imagecached.oci.digest import Digest
from tests.fakes import faults
from tests.fakes.registry import FakeRegistry
from tests.support import tars
from tests.support.containerd import CONTAINERD2, NAME, STABLE, Mode
from tests.support.demo import HELLO, SHELL, push_demo
from tests.support.nodes import Node, push_pause, serve_node
from tests.support.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.containerd, pytest.mark.timeout(180)]


@dataclass(frozen=True)
class Kind:
    """One way to set a node up."""

    mode: Mode
    programs: Path | None


KINDS = [
    pytest.param(Kind("default", STABLE), id="1-default"),
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
    with serve_node(demo, pause, kind.mode, kind.programs) as served:
        yield served


def unpacked(node: Node) -> int:
    """How many snapshots have a directory of their own."""
    return sum(1 for path in (node.daemon.root / "s").iterdir() if path.suffix != ".trash")


def layers(node: Node) -> int:
    """How many layers the daemon holds."""
    return len(node.daemon.ask("get", "layers")["layers"])


async def cut_off(pull: Awaitable[object]) -> None:
    """The server goes away before it has answered."""
    with pytest.raises((GRPCError, StreamTerminatedError)):
        await pull


async def test_a_cold_pull_is_ours(demo: Registry, node: Node) -> None:
    """Every blob is fetched once, nothing is unpacked, the container runs; pulled again, no blob is."""
    hello = demo.reference(HELLO)
    async with node.cri() as cri:
        with demo.requests("demo/hello") as requests:
            await cri.pull(hello, handler=node.handler)
        blobs = [line for line in requests if "/blobs/" in line]
        # The config is wanted by both of us.
        assert len(set(blobs)) == 4
        assert sorted(map(blobs.count, set(blobs))) == [1, 1, 1, 2]
        assert (layers(node), unpacked(node)) == (3, 0)
        with demo.requests("demo/hello") as requests:
            await cri.pull(hello, handler=node.handler)
        assert [line for line in requests if "/blobs/" in line] == []
        async with cri.pod(hello, handler=node.handler) as pod:
            assert await pod.execute("hello") == "Hello, world!\n"


@pytest.mark.containerd2
def test_the_transfer_service_too(demo: Registry, pause: str) -> None:
    """What ``ctr`` of containerd 2 pulls says by the same labels which image it is."""
    with serve_node(demo, pause, "default", CONTAINERD2) as node:
        ours = ("--snapshotter", NAME, demo.reference(SHELL))
        node.containerd.ctr("images", "pull", "--hosts-dir", node.containerd.certs, *ours)
        assert (layers(node), unpacked(node)) == (1, 0)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_we_cannot_pull_containerd_does(
    demo: Registry, pause: str, kind: Kind, tmp_path: Path
) -> None:
    """A daemon that does not reach the registry leaves the image to containerd, at once, and says so."""
    (tmp_path / demo.address).mkdir()
    (tmp_path / demo.address / "hosts.toml").write_text('server = "http://127.0.0.1:1"\n')
    nowhere = {"certs_dirs": [str(tmp_path)], "attempts": 1}
    with serve_node(demo, pause, kind.mode, kind.programs, registry=nowhere) as node:
        async with node.cri() as cri:
            await cri.pull(demo.reference(HELLO), handler=node.handler)
            assert (layers(node), unpacked(node)) == (0, 3)
            events = map(json.loads, node.daemon.ctl("-o", "json", "events").stdout.splitlines())
            assert [event["kind"] for event in events].count("left_to_runtime") == 1
            async with cri.pod(demo.reference(HELLO), handler=node.handler) as pod:
                assert await pod.execute("hello") == "Hello, world!\n"


@pytest.mark.parametrize("kind", KINDS[:2])
async def test_containerd_is_killed_during_a_pull(kind: Kind) -> None:
    """The daemon goes on for a while; containerd asks again when it is back, and nothing is fetched twice."""
    tar = tars.tar(tars.file("file", b"x" * 5000))
    async with FakeRegistry() as registry:
        registry.put_image("demo", "1", [tar])
        gate, path = asyncio.Event(), f"/v2/demo/blobs/{Digest.of(tar)}"
        registry.script(path, faults.gated(gate, after=100))
        reference = f"{registry.address}/demo:1"
        with serve_node(registry, "example.org/pause:1", kind.mode, kind.programs) as node:
            async with node.cri() as cri, asyncio.TaskGroup() as group:
                pull = group.create_task(cut_off(cri.pull(reference)))
                while not registry.asked(path):
                    await asyncio.sleep(0)
                node.containerd.stop(signal.SIGKILL)
                await pull
            gate.set()
            node.containerd.start()
            async with node.cri() as cri:
                await cri.pull(reference)
            assert len(registry.asked(path)) == 1
            assert (layers(node), unpacked(node)) == (1, 0)
