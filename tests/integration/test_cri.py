"""Pods over CRI with snapshots of ours, on each version of containerd and in each mode it has."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.containerd import CONTAINERD2, STABLE, Mode
from tests.support.cri import Cri
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


@pytest.fixture(scope="module", params=KINDS)
def node(
    demo: Registry, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    """A daemon and a containerd for all tests of one kind of node."""
    pause = push_pause(demo, tmp_path_factory.mktemp("pause"))
    kind: Kind = request.param
    with serve_node(demo, pause, kind.mode, kind.programs) as served:
        yield served


@pytest.fixture
async def cri(node: Node) -> AsyncIterator[Cri]:
    """The kubelet's view of it."""
    async with node.cri() as connection:
        yield connection


async def test_the_life_of_a_pod(demo: Registry, node: Node, cri: Cri) -> None:
    """Pull, sandbox, container, exec, log, remove; the container's files are snapshots of ours."""
    shell = demo.reference(SHELL)
    async with cri.pod(shell, "sh", "-c", "echo started; sleep 1000", handler=node.handler) as pod:
        assert await pod.execute("sh", "-c", "echo x >/new && cat /new") == "x\n"
        assert pod.log() == "started\n"
    assert await cri.stats() == {}
    await cri.remove_image(shell)
    assert await cri.image(shell) is None


async def test_the_image_is_known_afterwards(demo: Registry, node: Node, cri: Cri) -> None:
    """A second start of the same image asks the registry nothing."""
    hello = demo.reference(HELLO)
    await cri.ensure(hello, handler=node.handler)
    with demo.requests("demo/hello") as requests:
        async with cri.pod(hello, handler=node.handler) as pod:
            assert await pod.execute("hello") == "Hello, world!\n"
    assert requests == []
