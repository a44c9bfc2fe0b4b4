"""Caches over a real store and a registry that fails on demand, with a clock that tests move."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from imagecached.caches import Caches, Declared, Settings
from imagecached.caches.lives import durable
from imagecached.events import EventLog
from imagecached.imagecache import ImageCache, Status, parse_manifests
from imagecached.images import Images, PullSettings
from imagecached.layers.limits import Limits
from imagecached.oci.platform import Platform
from imagecached.registry import Patience, Ranged, Registry, RegistryConfig
from imagecached.store import Store, StorePolicy
from imagecached.telemetry import Metrics
from tests.fakes.calendar import FakeCalendar
from tests.fakes.registry import FakeRegistry
from tests.support import tars

_PATIENCE_SECONDS = 15.0
PULLS = PullSettings(4, 4, Platform("linux", "amd64"), Limits())


def layer(name: str, size: int = 2000) -> bytes:
    """A tar with one file."""
    return tars.tar(tars.directory("etc"), tars.file(f"etc/{name}", b"x" * size))


def manifest(name: str, *images: str, **spec: object) -> bytes:
    """An ImageCache as a file has it; ``annotations`` and ``labels`` go to the metadata."""
    metadata = {"name": name, "annotations": spec.pop("annotations", {}), "labels": spec.pop("labels", {})}
    document = {
        "apiVersion": "eci.alibabacloud.com/v1",
        "kind": "ImageCache",
        "metadata": metadata,
        "spec": {"images": list(images), **spec},
    }
    return json.dumps(document).encode()


def cache(name: str, *images: str, **spec: object) -> ImageCache:
    """The same, read."""
    parsed = parse_manifests(manifest(name, *images, **spec), "test")
    assert parsed.problems == ()
    return parsed.caches[0]


@dataclass
class Node:
    """What a test of the use case works with."""

    root: Path
    fake: FakeRegistry
    policy: StorePolicy = field(default_factory=lambda: StorePolicy(free_bytes=0))
    calendar: FakeCalendar = field(default_factory=FakeCalendar)
    settings: Settings = field(default_factory=Settings)
    events: EventLog = field(default_factory=EventLog)
    metrics: Metrics = field(default_factory=Metrics)
    collected: int = 0
    unregistered: list[str] = field(default_factory=list)
    settling: list[str] = field(default_factory=list)
    runtime: asyncio.Event = field(default_factory=asyncio.Event)
    caches: Caches = field(init=False)
    store: Store = field(init=False)
    images: Images = field(init=False)
    _stack: AsyncExitStack = field(init=False)

    def name(self, path: str) -> str:
        """An image of the fake."""
        return f"{self.fake.address}/{path}"

    async def unregister(self, *names: str) -> None:
        """As the registration with containerd."""
        self.unregistered.extend(names)

    async def settled(self, *names: str) -> None:
        """The same, with a runtime that answers once ``runtime`` is set."""
        self.settling.extend(names)
        await self.runtime.wait()

    async def collect(self) -> None:
        """As the daemon's upkeep."""
        await self.store.gc()
        self.collected += 1

    async def start(self) -> None:
        """Begin to tend; what was remembered is taken up."""
        self._stack = AsyncExitStack()
        self.runtime.set()
        config = RegistryConfig(
            certs_dirs=(self.root / "certs.d",),
            patience=Patience(attempts=1, read_seconds=5, retry_after_most_seconds=0),
            ranged=Ranged(connections=1),
        )
        self.store = await Store.open(self.root / "store", self.policy)
        self._stack.push_async_callback(self.store.close)
        registry = await self._stack.enter_async_context(Registry(config, environment={}))
        group = await self._stack.enter_async_context(_cancelled())
        self.images = Images(registry, self.store, PULLS, group, metrics=self.metrics, events=self.events)
        self.caches = Caches(
            self.images, self.store, self.settings, events=self.events, metrics=self.metrics,
            collect=self.collect, registration=self, clock=self.calendar.clock(),
        )  # fmt: skip
        group.create_task(self.caches.run(), name="caches")

    async def stop(self) -> None:
        """As SIGTERM does."""
        await self._stack.aclose()

    async def restart(self) -> None:
        """Stop and start, when what is shown is written."""
        tendings = self.caches._desk.tendings
        await self.until(lambda: all(durable(one.life) == durable(one._written) for one in tendings.values()))
        await self.stop()
        await self.start()

    def declare(self, *caches: ImageCache) -> None:
        """The complete set of files."""
        self.caches.declare("files", {one.name: Declared(one, origin=f"{one.name}.yaml") for one in caches})

    async def until(self, holds: Callable[[], bool], what: str = "") -> None:
        """Let everybody act until ``holds``."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if holds():
                return
            await asyncio.sleep(0)
        shown = [
            (view.name, view.status.phase, view.status.reason, view.status.message)
            for view in self.caches.list()
        ]
        raise AssertionError(f"never came: {what} {shown}")

    async def phase(self, name: str, *phases: str) -> Status:
        """Wait until the cache is in one of these phases."""

        def reached() -> bool:
            return any(view.name == name and view.status.phase in phases for view in self.caches.list())

        await self.until(reached, f"{name} {phases}")
        return self.caches.status(name)

    async def gone(self, name: str) -> None:
        """Wait until nobody knows the cache."""
        await self.until(lambda: all(view.name != name for view in self.caches.list()), f"{name} gone")

    def kinds(self) -> list[str]:
        """What happened to caches."""
        return [event.kind for event in self.events.recent() if event.kind.startswith("imagecache_")]


@asynccontextmanager
async def _cancelled() -> AsyncIterator[asyncio.TaskGroup]:
    """A group whose tasks end with the block."""

    class _End(Exception):
        pass

    try:
        async with asyncio.TaskGroup() as group:
            yield group
            raise _End
    except* _End:
        pass


@pytest.fixture(autouse=True)
def log_everything(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A line that cannot be written is a fault, too; and nothing unforeseen may happen."""
    caplog.set_level(logging.DEBUG)
    yield
    assert [record for record in caplog.get_records("call") if record.exc_info] == []


@pytest.fixture
def policy() -> StorePolicy:
    """No bounds of our own; a module may override it."""
    return StorePolicy(free_bytes=0)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A module may override it."""
    return Settings(secrets_dir=tmp_path / "secrets", compare_seconds=3600)


@pytest.fixture
async def node(tmp_path: Path, policy: StorePolicy, settings: Settings) -> AsyncIterator[Node]:
    """A node that tends its caches."""
    async with FakeRegistry() as fake:
        node = Node(tmp_path, fake, policy, settings=settings)
        await node.start()
        try:
            yield node
        finally:
            await node.stop()
