"""The stand-in for a kubelet runs pods of the emulated API server on a real containerd."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, Document, wait_for
from tests.e2e.options import parse
from tests.e2e.report import Report
from tests.e2e.world import NAMESPACE, NAMESPACES, NODE, POD, World, container_ids, plain_template
from tests.support.apiserver import ApiServer
from tests.support.apiserver_thread import served
from tests.support.containerd import CONTAINERD2, Containerd, serve_containerd
from tests.support.kubelet import kubelet
from tests.support.nodes import PAUSE, push_pause
from tests.support.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.containerd, pytest.mark.containerd2]

PATIENCE = 30.0


@pytest.fixture
def node(registry: Registry, tmp_path: Path) -> Iterator[Containerd]:
    """A containerd without us."""
    pause = push_pause(registry, tmp_path)
    with serve_containerd(plain_http=[registry.address], programs=CONTAINERD2, pause=pause) as containerd:
        yield containerd


@pytest.fixture
def world(node: Containerd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A cluster whose pods run there."""
    with (
        served(ApiServer()) as api,
        api.beside(kubelet(api.server, node.socket, node.directory / "logs", "n1")),
    ):
        monkeypatch.setenv("KUBECONFIG", str(api.server.kubeconfig(tmp_path / "kubeconfig")))
        options = parse(["--image", "unused:1", "--patience", str(PATIENCE)], [])
        world = World(options, Cluster.from_environment(), Report())
        world.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        try:
            yield world
        finally:
            world.cluster.http.close()


def _run(world: World, image: str, **spec: str) -> Document:
    template = plain_template(image)
    template["spec"].update(spec)
    return world.cluster.create(world.pod_document(template))


def _started(world: World, name: str) -> bool:
    return bool(container_ids(world.pod(name)))


def test_a_pod_runs_and_goes(world: World, node: Containerd, registry: Registry) -> None:
    """It is pulled once, runs, and its object goes after its container has ended."""
    image = registry.reference(PAUSE)
    times = []
    for _ in range(2):
        name = _run(world, image)["metadata"]["name"]
        wait_for(partial(_started, world, name), name, PATIENCE)
        assert world.pod(name)["spec"]["nodeName"] == "n1"
        assert world.pod(name)["status"]["phase"] == "Running"
        times.append(world.image_time(name))
    assert ["already present" in each for each in times] == [False, True]
    assert len(node.ctr("-n", "k8s.io", "tasks", "list", "--quiet").split()) == 4
    world.remove_pods()
    assert node.ctr("-n", "k8s.io", "tasks", "list", "--quiet").split() == []
    assert world.cluster.get(NAMESPACES, NAMESPACE) is not None


def test_a_pod_waits_for_a_node_with_its_runtime(world: World, registry: Registry) -> None:
    """A RuntimeClass that selects other nodes keeps the pod waiting until the node is labelled."""
    world.cluster.create(
        {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": "other"},
            "handler": "runc",
            "scheduling": {"nodeSelector": {"other": "yes"}},
        }
    )
    waiting = _run(world, registry.reference(PAUSE), runtimeClassName="other")["metadata"]["name"]
    running = _run(world, registry.reference(PAUSE))["metadata"]["name"]
    wait_for(partial(_started, world, running), "the other pod", PATIENCE)
    assert "nodeName" not in world.pod(waiting)["spec"]
    world.cluster.merge(NODE, "n1", {"metadata": {"labels": {"other": "yes"}}})
    wait_for(partial(_started, world, waiting), "the waiting pod", PATIENCE)
    world.remove_pods()


def test_an_image_that_is_nowhere_is_told_in_the_events(world: World, registry: Registry) -> None:
    """The pod stays, with the runtime's own words."""
    name = _run(world, registry.reference("no/such:1"))["metadata"]["name"]
    failed = wait_for(
        lambda: next((each for each in world.events(name) if each["reason"] == "Failed"), None),
        "the event",
        PATIENCE,
    )
    assert "not found" in failed["message"]
    assert world.cluster.get(POD, name, NAMESPACE) is not None
    world.remove_pods()
