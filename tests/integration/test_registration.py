"""Prepared images become known to a real containerd, stay known whatever happens, and are forgotten."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from grpclib import GRPCError

from tests.support.containerd import CONTAINERD2, STABLE
from tests.support.demo import HELLO, SHELL, push_demo
from tests.support.nodes import Node, push_pause
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
            assert image.pinned == state["pinned"] == (node.containerd.programs is not None)
    assert requests == []


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
        described = node.daemon.ask("describe", hello)
        by_digest = f"{hello.rpartition(':')[0]}@{described['target_digest']}"
        assert hello not in names(node)
        async with node.cri() as cri:
            assert await cri.image(by_digest) is not None
            with pytest.raises(GRPCError, match="not found"):
                await cri.start_pod(by_digest, ["sleep", "1000"])
            await_event(node.daemon, "blobs_fetched", hello)
            async with cri.pod(by_digest) as pod:
                assert await pod.execute("hello") == "Hello, world!\n"
