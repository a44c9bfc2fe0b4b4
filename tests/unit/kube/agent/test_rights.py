"""The agent works with what ``daemonset/`` grants it, and uses all of that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.registry import FakeRegistry
from tests.support.apiserver import ApiServer, User
from tests.unit.caches.conftest import Node as CacheNode
from tests.unit.kube.agent.conftest import REPORTS, World, node_object

_MANIFESTS = Path(__file__).parents[4] / "daemonset"
_RBAC = "rbac.authorization.k8s.io"
_TOKEN = "of-the-node"


@pytest.fixture
async def world(tmp_path: Path, quick_reports: None) -> AsyncIterator[World]:
    """A cluster with the real roles, in which the agent is its ServiceAccount."""
    tokens = {_TOKEN: User.service_account("imagecached-system", "imagecached-node")}
    async with ApiServer(tokens=tokens, rbac=True) as server, FakeRegistry() as fake:
        server.install(_MANIFESTS / "crds", _MANIFESTS / "base/node/rbac.yaml")
        server.put(node_object())
        kubeconfig = server.kubeconfig(tmp_path / "kubeconfig", token=_TOKEN)
        world = World(server, fake, CacheNode(tmp_path, fake), kubeconfig)
        await world.start()
        yield world
        await world.stop()


async def test_the_role_is_the_least_that_works(world: World) -> None:
    """First start, a build, a Node that is replaced, a restart: each right is used, none missed."""
    world.declare("one", world.image("app:1"))
    world.resolve("one")
    await world.phase("one", "Ready")
    await world.stop()
    found = world.server.get(REPORTS, "n1")
    stale = [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "older"}]
    world.server.put({**found, "metadata": {**found["metadata"], "ownerReferences": stale}})
    world.handler = False
    await world.start()
    await world.until(lambda: world.report()["handlerReady"] is False)
    rules = world.server.get(f"clusterroles.{_RBAC}", "imagecached-node")["rules"]
    granted = {f"{verb} {plural}" for rule in rules for plural in rule["resources"] for verb in rule["verbs"]}
    assert set(world.server.traffic.requests) == granted
    assert world.server.traffic.refused.keys() <= {404}
