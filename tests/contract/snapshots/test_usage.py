"""Usage: each snapshot alone, cheap, and a shared layer once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from imagecached.snapshotter import Caller
from tests.support.snapshots import NAME, World, mounted, names, run_in, served
from tests.unit.store import building

pytestmark = pytest.mark.root
CALLER = Caller(NAME)


async def test_a_shared_layer_is_charged_once(world: World) -> None:
    """To its oldest record, over parents, images and snapshotter names; to the next when that is gone."""
    one = world.hold_image("one", building.layer(1, 50_000), building.layer(2, 90_000))
    two = world.hold_image("two", building.layer(2, 90_000))
    base, top = await world.snapshots.adopt_image(one)
    again = await world.snapshots.adopt(two.chain_id)
    other = world.snapshots.of(snapshotter="other")
    there = await other.adopt(one.diff_ids[0])
    paid = [await world.snapshots.usage(info.name) for info in (base, top, again)]
    sizes = [layer.disk_bytes for layer in map(world.store.layer, one.diff_ids) if layer]
    assert paid == [(sizes[0], 1), (sizes[1], 1), (0, 0)]
    assert await other.usage(there.name) == (0, 0)
    await world.snapshots.remove(top.name)
    assert await world.snapshots.usage(again.name) == (sizes[1], 1)


async def test_an_active_snapshot_is_measured_and_a_view_takes_nothing(world: World, target: Path) -> None:
    """Without its parents; the figure may be some seconds old."""
    image = world.hold_image("app", building.layer(1))
    info = await world.snapshots.adopt(image.chain_id)
    await world.snapshots.view("view", info.name)
    assert await world.snapshots.usage("view") == (0, 0)
    with mounted(await world.snapshots.prepare("container", info.name), target):
        run_in(target, "head -c 300000 /dev/zero >big; mkdir e; touch e/f")
    size, inodes = await world.snapshots.usage("container")
    assert 300_000 <= size < 400_000
    assert inodes == 4
    with mounted(await world.snapshots.mounts("container"), target):
        run_in(target, "touch more")
    assert await world.snapshots.usage("container") == (size, inodes)


async def test_a_committed_snapshot_is_measured_once(world: World, target: Path) -> None:
    """What it takes is frozen the first time somebody asks."""
    with mounted(await world.snapshots.prepare("key"), target):
        run_in(target, "head -c 100000 /dev/zero >f")
    await world.snapshots.commit("name", "key")
    size, inodes = await world.snapshots.usage("name")
    assert (100_000 <= size < 150_000, inodes) == (True, 2)
    (world.root / "s/1/fs/f").unlink()
    assert await world.snapshots.usage("name") == (size, inodes)
    record = world.snapshotter.stat(CALLER, "name")
    assert (record.size, record.inodes) == (size, inodes)


async def test_commits_settle_by_themselves(root: Path) -> None:
    """Some time after the last one what they take is frozen, though nobody asked."""
    async with served(root, settle_seconds=0.05) as world:
        for number in range(3):
            await world.snapshots.prepare(f"key-{number}")
            await world.snapshots.commit(f"name-{number}", f"key-{number}")
        while world.store.ledger.unmeasured():
            await asyncio.sleep(0.01)
        assert world.snapshotter.stat(CALLER, "name-2").inodes == 1


async def test_cleanup_deletes_what_was_removed(world: World, target: Path) -> None:
    """Removal itself only puts it aside."""
    with mounted(await world.snapshots.prepare("key"), target):
        run_in(target, "mkdir -p a/b; touch a/b/c")
    await world.snapshots.remove("key")
    assert names(world.root / "s") == ["1.trash"]
    await world.snapshots.cleanup()
    await world.snapshots.cleanup()
    assert names(world.root / "s") == []
