"""A whole cluster in one process and in virtual time: emulated API server, nodes, registries, controllers."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest

from imagecached.imagecache import Status, parse_status, timestamp
from imagecached.kube.controller import Leader, Settings
from imagecached.kube.recorder import Recorder
from tests.fakes.registries import Registries
from tests.fakes.virtual import run, wall
from tests.support.apiserver import ApiServer
from tests.support.direct import Direct, direct
from tests.support.fleet import Fleet
from tests.unit.kube.controller.building import cache_document

CRDS = Path(__file__).resolve().parents[4] / "daemonset/crds"
SYSTEM = "imagecached-system"


class Controller:
    """One process: ``steps`` are the writes it made. It is killed before the write ``die_at``, (name,
    number).
    """

    def __init__(self, world: World, name: str, die_at: tuple[str, int] | None, skew: float) -> None:
        self.wire = Direct(world.server)
        self.steps: Counter[str] = Counter()
        self.task: asyncio.Task[None] | None = None
        self._die_at = die_at
        cluster = direct(world.server, manager="imagecached-controller", transport=self.wire)
        self._recorder = Recorder(cluster, "imagecached-controller", name, wall)
        self.leader = Leader(
            cluster, world.registries, self._recorder, world.settings,
            wall=lambda: wall() + skew, jitter=random.Random(3), step=self._step,
        )  # fmt: skip

    def _step(self, name: str) -> None:
        self.steps[name] += 1
        if (name, self.steps[name]) == self._die_at:
            self.kill()
            raise asyncio.CancelledError

    @property
    def dead(self) -> bool:
        """Was it killed?"""
        return self.wire.cut

    def kill(self) -> None:
        """As SIGKILL: nothing more reaches the server, now or later."""
        self.wire.cut = True
        if self.task is not None:
            self.task.cancel()

    async def run(self) -> None:
        """Lead until killed."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._recorder.run())
            group.create_task(self.leader.run())


class World:
    """Everything there is."""

    def __init__(self, group: asyncio.TaskGroup, settings: Settings, nodes: int, **fleet: Any) -> None:
        self.group = group
        self.settings = settings
        self.server = ApiServer(bookmark_seconds=6 * 3600.0)
        self.server.install(CRDS)
        for name in (SYSTEM, "team"):
            self.server.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        self.registries = Registries()
        self.fleet = Fleet(self.server, [f"n{number}" for number in range(nodes)], **fleet)
        self.tasks = [group.create_task(self.fleet.run())]

    def lead(
        self, name: str = "one", *, die_at: tuple[str, int] | None = None, skew: float = 0.0
    ) -> Controller:
        """Start a controller that leads; its clock is off by ``skew``."""
        controller = Controller(self, name, die_at, skew)
        controller.task = self.group.create_task(controller.run())
        self.tasks.append(controller.task)
        return controller

    def declare(self, name: str = "web", *images: str, **parts: Any) -> None:
        """Create or edit an ImageCache as a user does."""
        document = cache_document(name, *images, **parts)
        for key in ("uid", "generation", "creationTimestamp"):
            document["metadata"].pop(key)
        existing = next((each for each in self.caches() if each["metadata"]["name"] == name), None)
        if existing is None:
            self.server.put(
                {**document, "metadata": {**document["metadata"], "creationTimestamp": timestamp(wall())}}
            )
            return
        metadata = {**existing["metadata"], **document["metadata"]}
        if existing["spec"] != document["spec"]:
            metadata["generation"] = existing["metadata"]["generation"] + 1
        self.server.put({**existing, "metadata": metadata, "spec": document["spec"]})

    def without_schema(self) -> None:
        """From now on the server takes any spec."""
        kind = "customresourcedefinitions.apiextensions.k8s.io"
        found = self.server.get(kind, "imagecaches.eci.alibabacloud.com")
        (version,) = found["spec"]["versions"]
        anything = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        spec = {**found["spec"], "versions": [{**version, "schema": anything}]}
        self.server.put({**found, "spec": spec})

    def caches(self) -> list[dict[str, Any]]:
        """Every ImageCache."""
        return self.server.all("imagecaches.eci.alibabacloud.com")

    def object(self, name: str = "web") -> dict[str, Any]:
        """One ImageCache."""
        return self.server.get("imagecaches.eci.alibabacloud.com", name)

    def status(self, name: str = "web") -> Status:
        """Its status."""
        return parse_status(self.object(name).get("status"))

    def labels(self, node: str) -> Mapping[str, str]:
        """A node's labels of ours."""
        found = self.server.get("nodes", node)["metadata"]["labels"]
        return {key: value for key, value in found.items() if key.startswith("imagecached.dev/")}

    def secret(self, name: str, *, kind: str = "kubernetes.io/dockerconfigjson", data: Any = None) -> None:
        """A Secret in the namespace ``team``."""
        content = {".dockerconfigjson": "eyJhdXRocyI6e319"} if data is None else data
        self.server.put(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name, "namespace": "team"},
                "type": kind,
                "data": content,
            }
        )

    def granted(self) -> list[str]:
        """The Secrets of ``team`` that nodes may read."""
        roles = self.server.all("roles.rbac.authorization.k8s.io")
        bindings = self.server.all("rolebindings.rbac.authorization.k8s.io")
        assert len(roles) == len(bindings)
        return [name for role in roles for rule in role["rules"] for name in rule["resourceNames"]]

    def events(self, reason: str = "") -> list[str]:
        """Messages of the Kubernetes Events."""
        return [each["message"] for each in self.server.all("events") if reason in ("", each["reason"])]


Scene = Callable[[World], Coroutine[Any, Any, None]]
Play = Callable[..., None]


@pytest.fixture
def play() -> Play:
    """Runs a scene in a world of its own, in virtual time; what is left then is killed."""

    def played(scene: Scene, *, nodes: int = 3, settings: Settings | None = None, **fleet: Any) -> None:
        async def whole() -> None:
            async with asyncio.TaskGroup() as group:
                world = World(group, settings or Settings(), nodes, **fleet)
                await scene(world)
                for task in world.tasks:
                    task.cancel()

        run(whole())

    return played
