"""Prepared images become known to a real containerd, stay known whatever happens, and are forgotten."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.containerd import CONTAINERD2, STABLE
from tests.support.demo import HELLO, push_demo
from tests.support.nodes import Node, push_pause
from tests.support.registered import await_state, serve_registered
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
