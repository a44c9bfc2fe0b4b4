"""Images that containerd begins to unpack and the store does not hold; a registry that fails on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import web
from grpclib import Status

from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest
from imagecached.rpc import service
from imagecached.snapshotter import misses
from imagecached.store import StorePolicy
from tests.fakes import faults
from tests.fakes.registry import FakeRegistry
from tests.support import tars
from tests.support.snapshots import REF, Missing, Snapshots, World, mounted, names, refused, run_in, served

pytestmark = pytest.mark.root

IMAGE_REF = "containerd.io/snapshot/cri.image-ref"
MANIFEST = "containerd.io/snapshot/cri.manifest-digest"


@pytest.fixture
def missing() -> Missing | None:
    """Everything that is missing is pulled."""
    return Missing()


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    """An empty registry."""
    async with FakeRegistry() as fake:
        yield fake


def layer(name: str, size: int = 2000) -> bytes:
    """A tar with one file."""
    return tars.tar(tars.directory("d"), tars.file(f"d/{name}", b"x" * size))


@dataclass(frozen=True)
class Wanted:
    """An image in the registry, and how CRI names it to a snapshotter."""

    registry: FakeRegistry
    layers: Sequence[bytes]
    digest: str
    name: str = "demo"

    @property
    def chain(self) -> tuple[Digest, ...]:
        return chain_ids([Digest.of(tar) for tar in self.layers])

    def labels(self, depth: int, **others: str) -> dict[str, str]:
        """Those of the layer at this depth; an empty one of ``others`` is left out."""
        labels = {
            REF: self.chain[depth],
            IMAGE_REF: f"{self.registry.address}/{self.name}:1",
            MANIFEST: self.digest,
            **others,
        }
        return {key: value for key, value in labels.items() if value}

    def blob(self, depth: int) -> str:
        """The path of a layer in the registry."""
        return f"/v2/{self.name}/blobs/{Digest.of(self.layers[depth])}"

    def asked(self) -> int:
        """How often a layer was asked for."""
        return sum(len(self.registry.asked(self.blob(depth))) for depth in range(len(self.layers)))

    async def adopt(self, snapshots: Snapshots, depth: int, parent: str = "") -> str:
        """Prepare the layer, which is then there; the name of its record."""
        async with refused(Status.ALREADY_EXISTS):
            await snapshots.prepare(f"extract-{depth} {self.chain[depth]}", parent, self.labels(depth))
        found = await snapshots.walk(f'labels."{REF}"=={self.chain[depth]},parent=="{parent}"')
        return found[0].name

    async def adopt_all(self, snapshots: Snapshots) -> str:
        """As containerd unpacks an image of which everything is there."""
        parent = ""
        for depth in range(len(self.layers)):
            parent = await self.adopt(snapshots, depth, parent)
        return parent

    async def unpack(self, snapshots: Snapshots, depth: int, parent: str = "") -> str:
        """As containerd unpacks a layer that is not there; the name of its record."""
        key = f"own-{depth}"
        assert await snapshots.prepare(key, parent, self.labels(depth))
        await snapshots.commit(f"done-{depth}", key, {REF: self.chain[depth]})
        return f"done-{depth}"


def put(registry: FakeRegistry, *tars: bytes, name: str = "demo") -> Wanted:
    """An image of these layers in the registry."""
    return Wanted(registry, tars, registry.put_image(name, "1", tars), name)


def left(world: World) -> list[str]:
    """Why images were left to containerd."""
    return [event.facts["reason"] for event in world.events.recent() if event.kind == "left_to_runtime"]


def counted(world: World, result: str, reason: str) -> float:
    """How many layers had this fate."""
    wanted = f'imagecached_snapshot_misses_total{{reason="{reason}",result="{result}"}} '
    for line in world.metrics.exposition()[0].decode().splitlines():
        if line.startswith(wanted):
            return float(line.removeprefix(wanted))
    return 0


async def test_a_cold_image_is_pulled_once_for_all_its_layers(
    world: World, registry: FakeRegistry, target: Path
) -> None:
    """containerd unpacks none of them; the tree is whole; there is no image of ours."""
    wanted = put(registry, layer("a"), layer("b"), layer("c"))
    top = await wanted.adopt_all(world.snapshots)
    assert (wanted.asked(), len(registry.asked("/manifests/"))) == (3, 1)
    assert list((world.root / "s").iterdir()) == []
    with mounted(await world.snapshots.view("view", top), target):
        assert names(target / "d") == ["a", "b", "c"]
    assert (world.store.images(), world.store.pins()) == ((), ())
    assert counted(world, "pulled", "none") >= 1
    assert left(world) == []


async def test_each_layer_is_answered_as_soon_as_it_can_be(world: World, registry: FakeRegistry) -> None:
    """All are fetched at once; the lowest is answered while the highest is still on its way."""
    wanted = put(registry, layer("a"), layer("b"), layer("c"))
    gate = asyncio.Event()
    registry.script(wanted.blob(2), faults.gated(gate, after=100))
    first = await wanted.adopt(world.snapshots, 0)
    second = await wanted.adopt(world.snapshots, 1, first)
    assert wanted.asked() == 3
    async with asyncio.TaskGroup() as group:
        last = group.create_task(wanted.adopt(world.snapshots, 2, second))
        await world.snapshots.stat(second)
        assert not last.done()
        gate.set()
    assert world.store.snapshot(wanted.chain[2]) is not None


async def test_a_layer_waits_for_those_below_it(world: World, registry: FakeRegistry) -> None:
    """The upper layer alone is no chain; a collection meanwhile takes nothing away."""
    wanted = put(registry, layer("a"), layer("b"))
    gate = asyncio.Event()
    registry.script(wanted.blob(0), faults.gated(gate, after=100))
    async with asyncio.TaskGroup() as group:
        lowest = group.create_task(wanted.adopt(world.snapshots, 0))
        while world.store.layer(Digest.of(wanted.layers[1])) is None:
            await world.store.gc()
        assert not lowest.done()
        gate.set()
    await wanted.adopt(world.snapshots, 1, lowest.result())


async def test_between_two_layers_nothing_is_collected(world: World, registry: FakeRegistry) -> None:
    """The pull has ended, containerd has not come to the upper layer yet."""
    wanted = put(registry, layer("a"), layer("b"))
    below = await wanted.adopt(world.snapshots, 0)
    while not any(event.kind == "pulled" for event in world.events.recent()):
        await asyncio.sleep(0)
    await world.store.gc()
    await wanted.adopt(world.snapshots, 1, below)
    assert (wanted.asked(), len(registry.asked("/manifests/"))) == (2, 1)


async def test_many_callers_are_one_pull(world: World, registry: FakeRegistry) -> None:
    """Pods, namespaces and snapshotter names."""
    wanted = put(registry, layer("a"), layer("b"))
    callers = [
        world.snapshots.of(snapshotter=snapshotter, namespace=namespace)
        for snapshotter in ("imagecached", "other")
        for namespace in ("k8s.io", "default")
    ]
    async with asyncio.TaskGroup() as group:
        for caller in callers * 4:
            group.create_task(wanted.adopt_all(caller))
    assert (wanted.asked(), len(registry.asked("/manifests/"))) == (2, 1)


async def test_an_image_named_by_its_tag_alone(world: World, registry: FakeRegistry) -> None:
    """Its manifest is asked for by the tag, and it must have the layers that containerd wants."""
    wanted = put(registry, layer("a"))
    async with refused(Status.ALREADY_EXISTS):
        await world.snapshots.prepare("key", "", wanted.labels(0, **{MANIFEST: ""}))
    assert [asked.path for asked in registry.asked("/manifests/")] == ["/v2/demo/manifests/1"]


async def test_a_tag_that_has_moved_is_left_to_containerd(world: World, registry: FakeRegistry) -> None:
    """What it names now is another image: its layers are not taken for those that were asked for."""
    wanted = put(registry, layer("a"))
    registry.put_image("demo", "1", [layer("b")])
    assert await world.snapshots.prepare("key", "", wanted.labels(0, **{MANIFEST: ""}))
    assert len(left(world)) == 1
    assert f"no chain {wanted.chain[0]}" in left(world)[0]


@pytest.mark.parametrize("others", [{IMAGE_REF: ""}, {IMAGE_REF: "NOT/a reference"}, {MANIFEST: "sha256:x"}])
async def test_labels_that_name_no_image(
    world: World, registry: FakeRegistry, others: dict[str, str]
) -> None:
    """An ordinary snapshot, and no request."""
    wanted = put(registry, layer("a"))
    assert await world.snapshots.prepare("key", "", wanted.labels(0, **others))
    assert registry.requests == []


async def test_what_may_not_be_pulled_is_left_to_containerd(world: World, registry: FakeRegistry) -> None:
    """It is said why, once; the next layer, and the next try, do not ask the registry again."""
    wanted = put(registry, layer("a"), layer("b"))
    registry.challenge = 'Basic realm="x"'
    below = await wanted.unpack(world.snapshots, 0)
    asked = len(registry.requests)
    await wanted.unpack(world.snapshots, 1, below)
    assert await world.snapshots.prepare("again", "", wanted.labels(0))
    assert len(registry.requests) == asked
    assert len(left(world)) == 1
    assert (counted(world, "left", "access_denied"), counted(world, "left", "remembered")) == (1, 1)


async def test_a_layer_that_turns_out_wrong(world: World, registry: FakeRegistry) -> None:
    """What was good below it stays with us, the rest is containerd's."""
    wanted = put(registry, layer("a"), layer("b"), layer("c"))
    gate = asyncio.Event()

    async def corrupt_later(request: web.Request, answer: faults.Answer) -> web.StreamResponse:
        await gate.wait()
        return await faults.corrupt()(request, answer)

    registry.script(wanted.blob(1), corrupt_later)
    registry.script(wanted.blob(2), faults.gated(gate))
    first = await wanted.adopt(world.snapshots, 0)
    gate.set()
    second = await wanted.unpack(world.snapshots, 1, first)
    await wanted.unpack(world.snapshots, 2, second)
    assert len(left(world)) == 1
    assert {image.name for image in world.store.images()} == set()
    assert {snapshot.chain_id for snapshot in world.store.snapshots()} == {wanted.chain[0]}


async def test_the_time_of_a_pull_is_not_that_of_the_call(
    world: World, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the calls took tells how quick the service is; an image takes what it takes."""
    wanted, now = put(registry, layer("a")), 0.0
    original = world.snapshotter.fill

    async def slow(*arguments: object) -> None:
        nonlocal now
        await original(*arguments)  # type: ignore[arg-type]
        now += 1000

    monkeypatch.setattr(world.snapshotter, "fill", slow)
    monkeypatch.setattr(service, "time", SimpleNamespace(perf_counter=lambda: now))
    await wanted.adopt(world.snapshots, 0)
    assert now == 1000
    assert max(world.seconds) == 0


async def test_a_failure_is_forgotten_some_day(
    world: World, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry that is back is asked again."""
    monkeypatch.setattr(misses, "_FORGET_SECONDS", 0.0)
    wanted = put(registry, layer("a"))
    registry.script(wanted.blob(0), faults.status(503))
    await world.snapshots.remove(await wanted.unpack(world.snapshots, 0))
    await wanted.adopt(world.snapshots, 0)


async def test_a_layer_that_was_lost_is_pulled_again(
    root: Path, registry: FakeRegistry, target: Path
) -> None:
    """containerd still has the image, and would never ask for it again: whoever stands on it gets it."""
    wanted = put(registry, layer("a"), layer("b"))
    async with served(root, missing=Missing()) as world:
        top = await wanted.adopt_all(world.snapshots)
        with mounted(await world.snapshots.prepare("container", top), target):
            run_in(target, "touch d/written")
        lost = world.store.layout.layer(Digest.of(wanted.layers[0]))
        world.reboot()
    lost.unlink()
    async with served(root, missing=Missing()) as world:
        assert world.store.snapshots() == ()
        with mounted(await world.snapshots.mounts("container"), target):
            assert names(target / "d") == ["a", "b", "written"]
        world.reboot()
    lost.unlink()
    async with served(root, missing=Missing()) as world:
        with mounted(await world.snapshots.view("view", top), target):
            assert names(target / "d") == ["a", "b"]
        world.reboot()
    lost.unlink()
    registry.challenge = 'Basic realm="x"'
    async with served(root, missing=Missing()) as world:
        async with refused(Status.DATA_LOSS, "pull it again"):
            await world.snapshots.prepare("another", top)
        assert len(left(world)) == 1


class TestHurry:
    """Nobody waits long."""

    @pytest.fixture
    def missing(self) -> Missing | None:
        return Missing(wait_seconds=0.2)

    async def test_a_pull_that_gets_stuck_is_left_to_containerd(
        self, world: World, registry: FakeRegistry
    ) -> None:
        """Nothing unfinished stays."""
        wanted = put(registry, layer("a"))
        registry.always(wanted.blob(0), faults.stalled(after=100))
        await wanted.unpack(world.snapshots, 0)
        assert counted(world, "left", "unavailable") == 1
        while list(world.store.layout.ingest.iterdir()):
            await asyncio.sleep(0)


class TestNoLinger:
    """A pull is left as soon as nobody waits for it."""

    @pytest.fixture
    def missing(self) -> Missing | None:
        return Missing(linger_seconds=0)

    async def test_a_client_that_gives_up(self, world: World, registry: FakeRegistry) -> None:
        """The pull is cancelled, nothing is remembered against the image: the next client gets it."""
        wanted = put(registry, layer("a"))
        registry.script(wanted.blob(0), faults.stalled(after=100))
        with suppress(TimeoutError):
            await world.snapshots.prepare("key", "", wanted.labels(0), timeout=0.2)
        while not world.events.recent():
            await asyncio.sleep(0)
        assert [event.kind for event in world.events.recent()] == ["pull_cancelled"]
        assert list(world.store.layout.ingest.iterdir()) == []
        await wanted.adopt(world.snapshots, 0)

    async def test_what_containerd_lets_go_is_freed(self, world: World, registry: FakeRegistry) -> None:
        """It was never an image of ours: the disk is free again when containerd removes it."""
        wanted = put(registry, layer("a"))
        record = await wanted.adopt(world.snapshots, 0)
        await world.store.gc()
        assert len(world.store.layers()) == 1
        await world.snapshots.remove(record)
        await world.store.gc()
        assert world.store.layers() == ()


async def test_a_call_that_was_dropped_comes_again(world: World, registry: FakeRegistry) -> None:
    """The pull has gone on meanwhile."""
    wanted = put(registry, layer("a"))
    gate = asyncio.Event()
    registry.script(wanted.blob(0), faults.gated(gate, after=100))
    with suppress(TimeoutError):
        await world.snapshots.prepare("key", "", wanted.labels(0), timeout=0.2)
    assert wanted.asked() == 1
    gate.set()
    await wanted.adopt(world.snapshots, 0)
    assert wanted.asked() == 1


class TestFullStore:
    """A quota that the image does not fit."""

    @pytest.fixture
    def missing(self) -> Missing | None:
        return Missing(policy=StorePolicy(quota_bytes=20_000, free_bytes=0))

    async def test_no_room_for_it(self, world: World, registry: FakeRegistry) -> None:
        """containerd gets an ordinary snapshot."""
        wanted = put(registry, layer("a", 200_000))
        await wanted.unpack(world.snapshots, 0)
        assert counted(world, "left", "out_of_space") == 1
