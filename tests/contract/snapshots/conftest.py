"""A served root for each test, on paths as short as on a real host: all options of a mount share a page."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.mounts import unmount_below
from tests.support.snapshots import Missing, Snapshots, World, served


@pytest.fixture
def root() -> Iterator[Path]:
    """A root that does not exist yet, in a folder of its own; nothing of it outlives the test."""
    folder = Path(tempfile.mkdtemp(prefix="s-"))
    yield folder / "r"
    unmount_below(folder)
    shutil.rmtree(folder)


@pytest.fixture
def missing() -> Missing | None:
    """Nothing is pulled; a module may override it."""
    return None


@pytest.fixture
async def world(root: Path, missing: Missing | None) -> AsyncIterator[World]:
    """The real service; its task group needs one task for its whole life."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    done = asyncio.Event()

    async def host() -> None:
        try:
            async with served(root, missing=missing) as world:
                ready.set_result(world)
                await done.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            raise

    task = loop.create_task(host())
    yield await ready
    done.set()
    await task


@pytest.fixture
def snapshots(world: World) -> Snapshots:
    """A client of it."""
    return world.snapshots


@pytest.fixture
def target(root: Path) -> Path:
    """Where to mount."""
    return root.parent / "t"
