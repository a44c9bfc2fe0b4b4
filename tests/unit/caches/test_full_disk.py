"""An update on a disk that is really full: the old generation serves, and nothing of the new one is left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from imagecached.caches import Settings
from tests.fakes.registry import FakeRegistry
from tests.unit.caches.conftest import Node, cache, layer
from tests.unit.caches.test_changing import pinned, serving
from tests.unit.store.test_full_disk import DISK_BYTES, Filler, mounted

pytestmark = pytest.mark.root


@pytest.fixture
async def node(tmp_path: Path, settings: Settings) -> AsyncIterator[Node]:
    """A node whose root is a small disk of its own."""
    options = ("-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none")
    with mounted(tmp_path / "disk", *options) as disk:
        async with FakeRegistry() as fake:
            node = Node(disk, fake, settings=settings)
            await node.start()
            try:
                yield node
            finally:
                await node.stop()


@pytest.mark.parametrize("left", [0, 4096, 16384, 65536, 400_000])
async def test_an_update_on_a_full_disk(node: Node, left: int) -> None:
    """With so many bytes left: tried again later, what serves goes on, and once there is room it works."""
    old = node.fake.put_image("app", "1", [layer("old", 50_000)])
    new = node.fake.put_image("app", "2", [layer("new", 3_000_000)])
    await node.caches.apply([cache("demo", node.name("app:1"))])
    await node.phase("demo", "Ready")
    before, filler = pinned(node), Filler(node.root)
    node.declare(cache("demo", node.name("app:2")))
    filler.leave(left)
    await node.until(lambda: node.kinds()[-1] == "imagecache_retry" and node.calendar.sleepers == 1)
    status = node.caches.status("demo")
    assert (status.phase, status.reason, status.usable) == ("Updating", "OutOfSpace", True)
    assert serving(node, "demo") == [old]
    assert before <= pinned(node)
    assert list(node.store.layout.ingest.iterdir()) == []
    filler.clear()
    node.calendar.advance(600)
    await node.until(lambda: serving(node, "demo") == [new])
    await node.restart()
    assert serving(node, "demo") == [new]
    assert (await node.store.fsck()).clean
