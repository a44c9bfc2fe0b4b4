"""A fake registry, a second one, a client and a clock for every test of the registry client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from imagecached.registry import Patience, Ranged, Registry, RegistryConfig
from tests.fakes.registry import FakeRegistry
from tests.fakes.time import FakeTime
from tests.unit.registry.pulling import Counted


@pytest.fixture
async def fake() -> AsyncIterator[FakeRegistry]:
    """The registry that references of the test name."""
    async with FakeRegistry() as served:
        yield served


@pytest.fixture
async def other() -> AsyncIterator[FakeRegistry]:
    """Another server: a mirror, or a storage that the registry redirects to."""
    async with FakeRegistry() as served:
        yield served


@pytest.fixture
def time() -> FakeTime:
    """The client's clock."""
    return FakeTime()


@pytest.fixture
def config(tmp_path: Path) -> RegistryConfig:
    """No files but the test's own, and parts so small that small blobs have many."""
    return RegistryConfig(
        certs_dirs=(tmp_path / "certs.d",),
        auth_files=(tmp_path / "config.json",),
        patience=Patience(attempts=3, first_wait_seconds=1, connect_seconds=5, read_seconds=5),
        ranged=Ranged(connections=3, chunk_bytes=1000, threshold_bytes=4000),
    )


@pytest.fixture
def impatient(config: RegistryConfig) -> RegistryConfig:
    """For servers that fall silent: a real time-out, so short that nobody waits."""
    return replace(config, patience=replace(config.patience, read_seconds=0.1, attempts=2))


@pytest.fixture
def counted() -> Counted:
    """Bytes by source."""
    return Counted()


@pytest.fixture
async def client(config: RegistryConfig, time: FakeTime, counted: Counted) -> AsyncIterator[Registry]:
    """A client with the settings of ``config``, outside of any proxy environment."""
    async with Registry(config, on_source=counted, clock=time.clock(), environment={}) as registry:
        yield registry
