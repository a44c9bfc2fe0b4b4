"""The use case with a real store and a registry that fails on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from imagecached.events import EventLog
from imagecached.images import Images, PullSettings
from imagecached.layers.limits import Limits
from imagecached.oci.platform import Platform
from imagecached.registry import Patience, Ranged, Registry, RegistryConfig
from imagecached.store import Store, StorePolicy
from imagecached.telemetry import Metrics
from tests.fakes.registry import FakeRegistry
from tests.support import tars

SETTINGS = PullSettings(4, 4, Platform("linux", "amd64"), Limits())


@dataclass
class Bench:
    """What a test of the use case works with."""

    images: Images
    store: Store
    fake: FakeRegistry
    events: EventLog
    metrics: Metrics

    def name(self, path: str) -> str:
        return f"{self.fake.address}/{path}"

    def blobs_asked(self) -> int:
        """Requests for blobs so far, those for configs included."""
        return len(self.fake.asked("/blobs/"))

    def unfinished(self) -> list[Path]:
        return list(self.store.layout.ingest.iterdir())


@pytest.fixture
def policy() -> StorePolicy:
    """No bounds of our own; a module may override it."""
    return StorePolicy(free_bytes=0)


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    """The folder of hosts.toml files."""
    return tmp_path / "certs.d"


@pytest.fixture
async def bench(tmp_path: Path, policy: StorePolicy, certs: Path) -> AsyncIterator[Bench]:
    """A store, a registry and the use case between them."""
    config = RegistryConfig(
        certs_dirs=(certs,),
        patience=Patience(attempts=1, read_seconds=5),
        ranged=Ranged(connections=1),
    )
    metrics, events = Metrics(), EventLog()
    store = await Store.open(tmp_path / "root", policy)
    try:
        async with (
            FakeRegistry() as fake,
            Registry(config, on_source=metrics.obtained, environment={}) as registry,
            asyncio.TaskGroup() as group,
        ):
            images = Images(registry, store, SETTINGS, group, metrics=metrics, events=events)
            yield Bench(images, store, fake, events, metrics)
    finally:
        await store.close()


def layer(name: str, size: int = 2000) -> bytes:
    """A tar with one file."""
    return tars.tar(tars.directory("etc"), tars.file(f"etc/{name}", b"x" * size))
