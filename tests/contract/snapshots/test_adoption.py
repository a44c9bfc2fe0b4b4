"""Prepared images: the handshake, what becomes of it, and what containerd never gets to see."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from grpclib import Status

from imagecached.oci.chain import chain_ids
from imagecached.rpc._proto import snapshots_pb2 as pb
from tests.support.snapshots import REF, World, mounted, names, refused, run_in
from tests.unit.store import building

pytestmark = pytest.mark.root


async def test_a_prepared_image_runs_without_a_layer_being_unpacked(world: World, target: Path) -> None:
    """Every intermediate chain has its true content; the container's layer is writable; nothing was mounted
    before somebody asked.
    """
    image = world.hold_image("app", building.layer(1), building.layer(2), building.layer(3))
    infos = await world.snapshots.adopt_image(image)
    assert world.layer_mounts() == frozenset()
    assert [info.parent for info in infos] == ["", infos[0].name, infos[1].name]
    for depth, info in enumerate(infos, start=1):
        with mounted(await world.snapshots.view(f"view-{depth}", info.name), target):
            assert names(target / "d") == [f"file{number}" for number in range(1, depth + 1)]
    with mounted(await world.snapshots.prepare("container", infos[-1].name), target):
        run_in(target, "echo changed >d/file1; rm d/file2")
        assert names(target / "d") == ["file1", "file3"]


async def test_the_answer_is_the_same_again(world: World) -> None:
    """Asked twice, and by sixteen at once: one record."""
    image = world.hold_image("app", building.layer(1))
    first = await world.snapshots.adopt(image.chain_id)
    async with asyncio.TaskGroup() as group:
        for number in range(16):
            group.create_task(world.snapshots.adopt(image.chain_id, key=f"extract-{number}"))
    assert await world.snapshots.walk() == [first]


async def test_namespaces_with_parents_of_their_own(world: World) -> None:
    """One chain under two texts for its parent is two records; the lowest has none and is shared."""
    image = world.hold_image("app", building.layer(1), building.layer(2))
    base, top = await world.snapshots.adopt_image(image)
    # Another namespace that had unpacked the base by itself.
    other = world.snapshots.of(namespace="other")
    await other.prepare("other/1/extract", "", {REF: "sha256:unknown"})
    await other.commit("other/2/base", "other/1/extract", {REF: image.diff_ids[0]})
    again = await other.adopt(image.chain_id, "other/2/base")
    assert again.name != top.name
    assert (await other.adopt(image.diff_ids[0])).name == base.name


async def test_an_unknown_chain_is_an_ordinary_snapshot(world: World) -> None:
    """Also a label that is no digest at all."""
    world.hold_image("app", building.layer(1))
    for number, ref in enumerate(["sha256:" + "0" * 64, "nonsense", "sha256:short", ""]):
        mounts = await world.snapshots.prepare(f"key-{number}", "", {REF: ref})
        assert mounts[0].type == "bind"


async def test_nothing_is_adopted_above_what_it_does_not_stand_on(world: World, target: Path) -> None:
    """A chain is answered for only where the parent is its own parent: no wrong bytes below it."""
    image = world.hold_image("app", building.layer(1), building.layer(2))
    other = world.hold_image("other", building.layer(3))
    above = await world.snapshots.adopt(other.chain_id)
    await world.snapshots.prepare("a")
    await world.snapshots.commit("ordinary", "a")
    for number, parent in enumerate(["", above.name, "ordinary"]):
        await world.snapshots.prepare(f"key-{number}", parent, {REF: image.chain_id})
    await world.snapshots.prepare("key-3", above.name, {REF: image.diff_ids[0]})
    async with refused(Status.NOT_FOUND):
        await world.snapshots.prepare("key-4", "nobody", {REF: image.chain_id})


async def test_ordinary_layers_above_prepared_ones(world: World, target: Path) -> None:
    """An image whose lower layers we hold: the rest is unpacked by containerd on top of them."""
    image = world.hold_image("app", building.layer(1), building.layer(2))
    _, top = await world.snapshots.adopt_image(image)
    parent = top.name
    for number in (3, 4):
        with mounted(await world.snapshots.prepare(f"key-{number}", parent), target):
            run_in(target, f"touch d/file{number}; rm d/file{number - 2}")
        parent = f"layer-{number}"
        await world.snapshots.commit(parent, f"key-{number}")
    with mounted(await world.snapshots.view("view", parent), target):
        assert names(target / "d") == ["file3", "file4"]


async def test_a_chain_with_a_seam(world: World, target: Path) -> None:
    """Directories that the upper layer does not mention keep what the lower one says."""
    image = world.hold_image("app", building.base_with_modes(), building.without_parents())
    infos = await world.snapshots.adopt_image(image)
    with mounted(await world.snapshots.prepare("container", infos[-1].name), target):
        assert (target / "t").stat().st_mode & 0o7777 == 0o1777
        assert names(target / "t") == ["a", "b0"]


async def test_private_layers_are_never_listed(world: World) -> None:
    """The first garbage collection of containerd removes what it lists and does not know."""
    image = world.hold_image("app", building.layer(1), building.layer(2))
    assert await world.snapshots.walk() == []
    base = await world.snapshots.adopt(chain_ids(image.diff_ids)[0])
    assert await world.snapshots.names() == {base.name}


async def test_a_sweep_takes_records_and_not_layers(world: World, target: Path) -> None:
    """containerd crashed before it wrote its side: it removes what it does not know, children first, and may
    adopt again.
    """
    image = world.hold_image("app", building.layer(1), building.layer(2))
    infos = await world.snapshots.adopt_image(image)
    async with refused(Status.FAILED_PRECONDITION, "remove"):
        await world.snapshots.remove(infos[0].name)
    for info in reversed(infos):
        await world.snapshots.remove(info.name)
    await world.snapshots.cleanup()
    assert await world.snapshots.walk() == []
    infos = await world.snapshots.adopt_image(image)
    with mounted(await world.snapshots.view("view", infos[-1].name), target):
        assert names(target / "d") == ["file1", "file2"]


async def test_gc_keeps_what_a_record_stands_for(world: World, target: Path) -> None:
    """The image is removed, its layers stay as long as containerd knows them; then they go."""
    image = world.hold_image("app", building.layer(1), building.layer(2))
    infos = await world.snapshots.adopt_image(image)
    await world.store.remove_image(image.name)
    assert (await world.store.gc()).layers == ()
    with mounted(await world.snapshots.view("view", infos[-1].name), target):
        assert len(names(target / "d")) == 2
    for name in ("view", infos[1].name, infos[0].name):
        await world.snapshots.remove(name)
    await world.snapshots.cleanup()
    assert set((await world.store.gc()).layers) == set(image.diff_ids)


async def test_layers_are_mounted_once_and_let_go_after_the_last_user(world: World, target: Path) -> None:
    """Shared by containers of two images; kept while a record needs them, mounted or not."""
    one = world.hold_image("one", building.layer(1), building.layer(2))
    two = world.hold_image("two", building.layer(1), building.layer(3))
    (_, top_one), (_, top_two) = [await world.snapshots.adopt_image(image) for image in (one, two)]
    await world.snapshots.prepare("c1", top_one.name)
    with mounted(await world.snapshots.prepare("c2", top_two.name), target):
        assert len(world.mounter.mounted()) == 3
        await world.snapshots.cleanup()
        assert len(world.mounter.mounted()) == 3
        await world.snapshots.remove("c1")
        await world.snapshots.cleanup()
        assert world.layer_mounts() == set(two.diff_ids)
        await world.snapshots.remove("c2")
        await world.snapshots.cleanup()
        assert len(names(target / "d")) == 2, "a mount in use stays whatever the records say"
    await world.snapshots.cleanup()
    assert world.layer_mounts() == frozenset()


async def test_mounts_are_made_again_after_a_reboot(world: World, target: Path) -> None:
    """Before they are handed out."""
    image = world.hold_image("app", building.layer(1), building.layer(2))
    infos = await world.snapshots.adopt_image(image)
    with mounted(await world.snapshots.prepare("container", infos[-1].name), target):
        run_in(target, "touch d/mine")
    world.reboot()
    assert world.layer_mounts() == frozenset()
    with mounted(await world.snapshots.mounts("container"), target):
        assert names(target / "d") == ["file1", "file2", "mine"]


async def test_a_lost_layer_is_said_and_never_replaced_by_nothing(world: World) -> None:
    """DATA_LOSS for what stands on it; the key of a failed Prepare stays free; other images serve on."""
    lost = world.hold_image("lost", building.layer(1), building.layer(2))
    whole = world.hold_image("whole", building.layer(1))
    infos = await world.snapshots.adopt_image(lost)
    world.store.layout.layer(lost.diff_ids[1]).unlink()
    for _ in range(2):
        async with refused(Status.DATA_LOSS, "pull it again"):
            await world.snapshots.prepare("container", infos[-1].name)
    await world.snapshots.prepare("container", (await world.snapshots.adopt(whole.chain_id)).name)


async def test_128_prepared_layers_fit_a_page(world: World, target: Path) -> None:
    """Prepared, with the writable layer above them."""
    image = world.hold_image("tall", *[building.layer(number, 10) for number in range(128)])
    infos = await world.snapshots.adopt_image(image)
    with mounted(await world.snapshots.prepare("container", infos[-1].name), target):
        assert len(names(target / "d")) == 128


async def test_sixty_four_containers_of_sixteen_images_at_once(world: World) -> None:
    """All start; each layer is mounted once; all go, and nothing is left."""
    await world.snapshots.prepare("first", "")  # connects, and opens what is opened once
    await world.snapshots.remove("first")
    await world.snapshots.cleanup()
    before = names(Path("/proc/self/fd"))
    images = [
        world.hold_image(f"app{number}", building.layer(0), building.layer(number)) for number in range(1, 17)
    ]
    tops = [(await world.snapshots.adopt_image(image))[-1].name for image in images]
    async with asyncio.TaskGroup() as group:
        for number in range(64):
            group.create_task(world.snapshots.prepare(f"c{number}", tops[number % 16]))
    assert len(world.mounter.mounted()) == 17
    async with asyncio.TaskGroup() as group:
        for number in range(64):
            group.create_task(world.snapshots.remove(f"c{number}"))
    await world.snapshots.cleanup()
    await world.snapshots.cleanup()  # the first may have been answered while it went on
    assert world.mounter.mounted() == frozenset()
    assert await world.snapshots.names("kind==active") == set()
    async with asyncio.timeout(10):  # what leaks stays; what only ends a moment later does not
        while len(names(Path("/proc/self/fd"))) > len(before):
            await asyncio.sleep(0)
    assert list((world.root / "s").iterdir()) == []


async def test_a_record_says_what_it_is(world: World) -> None:
    """The labels containerd gave, and the reference that it looks for."""
    image = world.hold_image("app", building.layer(1))
    labels = {REF: str(image.chain_id), "containerd.io/snapshot/cri.image-ref": "example.org/app"}
    async with refused(Status.ALREADY_EXISTS):
        await world.snapshots.prepare("default/1/extract", "", labels)
    (info,) = await world.snapshots.walk()
    assert dict(info.labels) == labels
    assert info.kind == pb.COMMITTED
    assert image.chain_id in info.name
    assert info.name != image.chain_id
