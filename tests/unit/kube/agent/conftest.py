"""A node with a real store and real caches in an emulated cluster; the test is user and controller."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from imagecached.errors import Unavailable
from imagecached.imagecache import EVERYBODY, ImageStatus, parse_object, parse_status, phases, status_document
from imagecached.kube.agent import Agent, AgentSettings, Facts
from imagecached.kube.client import Cluster, Pace
from imagecached.oci.digest import Digest
from tests.fakes.registry import FakeRegistry
from tests.support.apiserver import ApiServer
from tests.unit.caches.conftest import Node as CacheNode
from tests.unit.caches.conftest import layer

CACHES = "imagecaches.eci.alibabacloud.com"
REPORTS = "nodeimagecaches.imagecached.dev"
_CRDS = Path(__file__).parents[4] / "daemonset/crds"
_PATIENCE_SECONDS = 45.0
PACE = Pace(request=20, first_wait=0.01, most_wait=0.02, denied=0.02, settle=0.0, jitter=random.Random(1))


def node_object(name: str = "n1", **spec: Any) -> dict[str, Any]:
    """A Node as a kubelet registers it."""
    info = {"operatingSystem": "linux", "architecture": "amd64"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": spec.pop("labels", {})},
        "spec": spec,
        "status": {"nodeInfo": info, "conditions": [{"type": "Ready", "status": "True"}]},
    }


@dataclass
class World:
    """A cluster, a registry and one node."""

    server: ApiServer
    fake: FakeRegistry
    node: CacheNode
    kubeconfig: Path
    handler: bool | None = True
    looks: int = 0
    used: int = 0
    wall: Callable[[], float] = time.time
    pace: Pace = PACE
    agent: Agent = field(init=False)
    _stack: AsyncExitStack = field(init=False)

    async def start(self) -> None:
        """Start the node's daemon."""
        await self.node.start()
        await self.start_agent()

    async def start_agent(self) -> None:
        """Start the agent alone."""
        self._stack = AsyncExitStack()
        opened = Cluster.open(self.kubeconfig, manager="imagecached-node", pace=self.pace)
        cluster = await self._stack.enter_async_context(opened)
        facts = Facts("linux/amd64", lambda: (self.used, 1 << 30), self._look)
        settings = AgentSettings("n1", start_seconds=0, facts_seconds=0.01, wall=self.wall)
        self.agent = Agent(cluster, self.node.caches, facts, settings)
        task = asyncio.get_running_loop().create_task(self.agent.run())
        self._stack.push_async_callback(_ended, task)

    async def stop(self) -> None:
        """As SIGTERM does."""
        await self._stack.aclose()
        await self.node.stop()

    async def restart(self) -> None:
        """Stop and start the daemon."""
        await self.stop()
        await self.start()

    async def _look(self) -> bool:
        self.looks += 1
        if self.handler is None:
            raise Unavailable("containerd is being restarted")
        return self.handler

    # As users and the controller.

    def image(self, path: str, *names: str) -> str:
        """Push an image of a layer per name; its reference by tag."""
        repository, _, tag = path.partition(":")
        self.fake.put_image(repository, tag or "latest", [layer(name) for name in names or (path,)])
        return f"{self.fake.address}/{path}"

    def declare(
        self, name: str, *images: str, annotations: dict[str, str] | None = None, **spec: Any
    ) -> None:
        """Create an ImageCache, or edit it."""
        plain = {"k8s.aliyun.com/plain-http-registry": self.fake.address}
        known = [each for each in self.server.all(CACHES) if each["metadata"]["name"] == name]
        generation = known[0]["metadata"]["generation"] + 1 if known else 1
        document = {
            "apiVersion": "eci.alibabacloud.com/v1",
            "kind": "ImageCache",
            "metadata": {
                "name": name,
                "annotations": {**plain, **(annotations or {})},
                "generation": generation,
            },
            "spec": {"images": list(images), "imageCacheSize": 20, **spec},
            "status": known[0].get("status", {}) if known else {},
        }
        self.server.put(document)

    def resolve(self, name: str, *, window: int = EVERYBODY) -> None:
        """As the controller: begin what is declared, resolve it, open the rollout window."""
        found = self.server.get(CACHES, name)
        cache, status = parse_object(found), parse_status(found.get("status"))
        if phases.needs_build(cache, status):
            status = phases.begin(cache, status, time.time())
            images = [ImageStatus(image, Digest.parse(self.digest(image))) for image in cache.images]
            status = phases.resolve(cache, status, images, time.time())
        status = replace(status, rollout_window=window)
        self.server.put({**found, "status": status_document(status)})

    def digest(self, image: str) -> str:
        """What a tag names in the registry."""
        repository, _, tag = image.removeprefix(f"{self.fake.address}/").partition(":")
        media_type_and_content = self.fake._manifests[repository][tag or "latest"]
        return str(Digest.of(media_type_and_content[1]))

    # What is seen.

    def report(self) -> dict[str, Any]:
        """The status of our NodeImageCache; empty when there is none."""
        found = [each for each in self.server.all(REPORTS) if each["metadata"]["name"] == "n1"]
        status: dict[str, Any] = found[0].get("status", {}) if found else {}
        return status

    def entry(self, name: str) -> dict[str, Any]:
        """What the report says of a cache."""
        return next((each for each in self.report().get("caches", []) if each["name"] == name), {})

    async def until(self, holds: Callable[[], object]) -> None:
        """Let everybody act until ``holds``."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not holds():
            shown = [(each.name, each.status.phase, each.status.message) for each in self.node.caches.list()]
            assert time.monotonic() < deadline, f"never came: {shown} {self.report()} {self.agent.problem}"
            await asyncio.sleep(0.002)

    async def phase(self, name: str, phase: str) -> dict[str, Any]:
        """Wait until the node reports this phase."""
        await self.until(lambda: self.entry(name).get("phase") == phase)
        return self.entry(name)

    def local(self, name: str) -> str:
        """The phase that the node itself has; empty when it does not know the cache."""
        return next((view.status.phase for view in self.node.caches.list() if view.name == name), "")


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


@pytest.fixture
def quick_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports come together within moments instead of seconds; test_report has the real figures."""
    monkeypatch.setattr("imagecached.kube.agent.report._LEAST_SECONDS", 0.02)
    monkeypatch.setattr("imagecached.kube.agent.report._SOON_SECONDS", 0.05)


@pytest.fixture
async def world(tmp_path: Path, quick_reports: None) -> AsyncIterator[World]:
    """A cluster with one node that runs."""
    async with ApiServer(bookmark_seconds=1.0) as server, FakeRegistry() as fake:
        server.install(_CRDS)
        server.put(node_object())
        world = World(server, fake, CacheNode(tmp_path, fake), server.kubeconfig(tmp_path / "kubeconfig"))
        await world.start()
        try:
            yield world
        finally:
            await world.stop()
