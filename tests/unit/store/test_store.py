"""The door: thin, asynchronous, done or not done, whatever is cancelled."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from imagecached.errors import FailedPrecondition, NotFound, OutOfSpace
from imagecached.oci.digest import Digest
from imagecached.store import GcReport, Ingest, Pin, Store, StorePolicy
from imagecached.store.points import arm
from tests.unit.store.building import ROOMY, Built, base_with_modes, image, layer, without_parents


@pytest.fixture
async def store(root: Path) -> AsyncIterator[Store]:
    """An open, empty store."""
    store = await Store.open(root, ROOMY)
    yield store
    await store.close()


async def publish(store: Store, built: Built) -> None:
    async with store.ingest(built.diff_id) as ingest:
        ingest.check_space(len(built.content))
        os.pwrite(ingest.fd, built.content, 0)
        await store.publish_layer(ingest, built.info)


async def pull(store: Store, name: str, *built: Built) -> str:
    record = image(name, *built)
    with store.hold(f"pull {name}", record.diff_ids):
        for one in built:
            await publish(store, one)
        await store.put_image(record)
    return record.name


async def test_a_pull_and_what_can_be_read_afterwards(store: Store) -> None:
    """Every read of the door answers."""
    name = await pull(store, "app", base_with_modes(), without_parents())
    found = store.image(name)
    assert found is not None
    assert [one.name for one in store.images()] == [name]
    assert {one.diff_id for one in store.layers()} == set(found.diff_ids)
    assert store.layer(found.diff_ids[0]) in store.layers()
    assert len(store.snapshots()) == 2
    snapshot = store.snapshot(found.chain_id)
    chain = store.chain(found.chain_id)
    assert snapshot is not None
    assert snapshot.seam
    assert chain.seam is not None
    assert store.layout.digests_of([*chain.layers, chain.seam]) == {*found.diff_ids, found.chain_id}
    with pytest.raises(NotFound):
        store.chain(Digest.of(b"unknown"))


async def test_usage_tells_what_sharing_saves(store: Store) -> None:
    """Logical bytes count shared layers once per image, disk bytes once."""
    await pull(store, "a", layer(1))
    await pull(store, "b", layer(1), layer(2))
    usage = store.usage()
    each = store.layers()[0].disk_bytes
    assert (usage.disk_bytes, usage.logical_bytes) == (2 * each, 3 * each)
    assert usage.dedup_ratio == 1.5
    assert (usage.layers, usage.images, usage.snapshots) == (2, 2, 2)
    assert usage.free_bytes > 0
    assert usage.budget_bytes > usage.disk_bytes
    assert not usage.over_high


async def test_usage_counts_what_is_being_written(store: Store) -> None:
    """Until it is published or given up."""
    async with store.ingest(layer(1).diff_id) as ingest:
        ingest.check_space(5000)
        assert store.usage().disk_bytes == 5000
    assert store.usage().disk_bytes == 0


async def test_a_second_store_on_the_root_is_refused(store: Store, root: Path) -> None:
    """Until the first is closed."""
    with pytest.raises(FailedPrecondition, match="in use"):
        await Store.open(root, ROOMY)


async def test_opening_that_is_cancelled_leaves_the_root_free(root: Path) -> None:
    """The thread finishes opening; the store it made is closed again."""
    reached, release = threading.Event(), threading.Event()

    def wait(name: str) -> None:
        if name == "open.emptied":
            reached.set()
            release.wait()

    arm(wait)
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(Store.open(root, ROOMY))
        await loop.run_in_executor(None, reached.wait)
        task.cancel()
        loop.call_soon(release.set)
    assert task.cancelled()
    await (await Store.open(root, ROOMY)).close()


@pytest.mark.parametrize("failure", [ValueError(), asyncio.CancelledError()])
async def test_an_ingest_goes_when_its_body_fails(store: Store, failure: BaseException) -> None:
    """Whatever ends the body."""
    entered: list[Ingest] = []

    async def write() -> None:
        async with store.ingest(layer(1).diff_id) as ingest:
            entered.append(ingest)
            os.pwrite(ingest.fd, b"half", 0)
            raise failure

    with pytest.raises(type(failure)):
        await write()
    assert not entered[0].path.exists()
    assert entered[0].fd == -1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_a_full_disk_in_the_body_is_out_of_space(store: Store, number: int) -> None:
    """Other errors stay what they are."""
    with pytest.raises(OutOfSpace, match=layer(1).diff_id):
        async with store.ingest(layer(1).diff_id):
            raise OSError(number, os.strerror(number))
    with pytest.raises(OSError, match="Input/output"):
        async with store.ingest(layer(1).diff_id):
            raise OSError(errno.EIO, os.strerror(errno.EIO))


async def test_two_tasks_publish_the_same_layer(store: Store) -> None:
    """Both succeed, one layer remains."""
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(publish(store, layer(1)))
    assert [one.diff_id for one in store.layers()] == [layer(1).diff_id]
    assert (await store.fsck()).clean
    assert list(store.layout.ingest.iterdir()) == []


async def test_gc_runs_beside_pulls(store: Store) -> None:
    """Whatever the interleaving, no image loses a layer."""

    async def collect() -> None:
        for _ in range(20):
            await store.gc()

    async with asyncio.TaskGroup() as group:
        group.create_task(collect())
        for number in range(6):
            group.create_task(pull(store, f"app{number}", layer(number), layer(number + 1)))
    assert not [one.name for one in store.images() if one.damaged]
    assert len(store.images()) == 6
    assert (await store.fsck()).clean


async def test_a_mutation_is_done_or_not_done_when_it_is_cancelled(store: Store) -> None:
    """Cancelled in the middle of recording, the image is there when the call ends."""
    record = image("app", layer(1))
    await publish(store, layer(1))
    reached, release = threading.Event(), threading.Event()

    def wait(name: str) -> None:
        if name == "image.inserted":
            reached.set()
            release.wait()

    arm(wait)
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(store.put_image(record))
        await loop.run_in_executor(None, reached.wait)
        task.cancel()
        loop.call_soon(release.set)
    assert task.cancelled()
    assert store.image(record.name) is not None


async def test_a_hold_is_not_waited_for(store: Store) -> None:
    """While gc is thinking, the event loop can add to a hold; gc then leaves what it needs."""
    await publish(store, layer(1))
    reached, release = threading.Event(), threading.Event()
    passed: list[str] = []

    def wait(name: str) -> None:
        passed.append(name)
        if name == "gc.planned":
            reached.set()
            release.wait()

    arm(wait)
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(store.gc())
        await loop.run_in_executor(None, reached.wait)
        with store.hold("mount", [layer(1).diff_id]):
            release.set()
            report = await task
    assert report == GcReport()
    assert passed.count("gc.planned") == 2
    assert store.layer(layer(1).diff_id) is not None


async def test_gc_asks_what_is_mounted(store: Store) -> None:
    """Through the sources given to protect."""
    await publish(store, layer(1))
    mounted = {store.layout.layer(layer(1).diff_id)}
    store.protect(lambda: store.layout.digests_of(mounted))
    assert await store.gc() == GcReport()
    mounted.clear()
    assert (await store.gc(dry_run=True)).layers == (layer(1).diff_id,)
    assert (await store.gc()).layers == (layer(1).diff_id,)


async def test_pins_and_names(store: Store) -> None:
    """Pinned images cannot be removed; unpinned ones can, once."""
    name = await pull(store, "app", layer(1))
    await store.pin("owner", "image", name)
    assert store.pins("owner") == (Pin("owner", "image", name),)
    with pytest.raises(FailedPrecondition, match="owner"):
        await store.remove_image(name)
    await store.unpin("owner")
    await store.remove_image(name)
    with pytest.raises(NotFound):
        await store.remove_image(name)


async def test_make_room_refuses_what_cannot_fit(root: Path) -> None:
    """Early, before anything is fetched."""
    store = await Store.open(root, StorePolicy(quota_bytes=1000, free_bytes=0))
    assert await store.make_room(1000) == GcReport()
    with pytest.raises(OutOfSpace, match="quota of 1000 bytes"):
        await store.make_room(1001)
    await store.close()


async def test_touches_survive_a_clean_close(root: Path) -> None:
    """They are written at the end at the latest."""
    store = await Store.open(root, ROOMY)
    name = await pull(store, "app", layer(1))
    store.touch(name)
    touched = store.images()[0].last_used
    await store.close()
    store = await Store.open(root, ROOMY)
    assert store.images()[0].last_used == touched
    await store.close()


async def test_fsck_tells_how_far_it_is(store: Store) -> None:
    """In bytes, after every file; the last report is the whole."""
    await pull(store, "app", layer(1), layer(2))
    heard: list[tuple[int, int]] = []
    report = await store.fsck(on_progress=lambda done, total: heard.append((done, total)))
    total = sum(one.file_bytes for one in store.layers())
    assert heard == [(total // 2, total), (total, total)]
    assert (report.files, report.bytes, report.clean) == (2, total, True)


async def test_fsck_can_be_left_between_files(store: Store) -> None:
    """Cancelling waits for one file, not for all."""
    await pull(store, "app", layer(1), layer(2), layer(3))
    heard: list[int] = []

    def leave(done: int, _: int) -> None:
        heard.append(done)
        task.cancel()

    async def check() -> None:
        await store.fsck(on_progress=leave)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(check())
    assert task.cancelled()
    assert len(heard) == 1


async def test_fsck_repairs_on_demand_only(store: Store) -> None:
    """First told, then put right; the image is pulled again."""
    name = await pull(store, "app", layer(1))
    path = store.layout.layer(layer(1).diff_id)
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    assert [one.repaired for one in (await store.fsck()).findings] == [False]
    report = await store.fsck(repair=True)
    assert [(one.kind, one.repaired) for one in report.findings] == [
        ("layer_corrupt", True),
        ("image_damaged", False),
    ]
    found = store.image(name)
    assert found is not None
    assert found.damaged
    await pull(store, "app", layer(1))
    assert (await store.fsck()).clean


async def test_who_wants_to_know_hears_what_was_freed(root: Path) -> None:
    """By gc or to make room, also which images had to go; never of a dry run, nor when nothing was freed."""
    store = await Store.open(root, ROOMY)
    try:
        heard: list[GcReport] = []
        store.on_freed(heard.append)
        await store.gc()
        await publish(store, layer(1))
        await store.put_image(image("app", layer(1)))
        await store.gc(dry_run=True)
        assert heard == []
        store._state.budget.policy = StorePolicy(quota_bytes=store.usage().disk_bytes, free_bytes=0)
        await store.make_room(1)
        assert [report.images for report in heard] == [(image("app", layer(1)).name,)]
        await publish(store, layer(2))
        await store.gc()
        assert [report.layers for report in heard[1:]] == [(layer(2).diff_id,)]
    finally:
        await store.close()
