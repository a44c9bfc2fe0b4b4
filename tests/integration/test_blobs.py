"""Layers as the registry has them, into a real containerd: resumed, verified, bounded, once for all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import pytest

from imagecached.containerd import Chunks, Containerd, ImageRecord, Namespace, Target
from imagecached.errors import Corrupt, OutOfSpace, Unavailable
from imagecached.events import EventLog
from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest
from imagecached.oci.platform import Platform
from imagecached.oci.reference import Reference
from imagecached.registration.blobs import Blobs
from imagecached.registration.place import Place
from imagecached.registration.wanted import Wanted, wanted_of
from imagecached.registry import Patience, Registry, RegistryConfig
from imagecached.store import ImageRecord as StoredImage
from tests.fakes import faults
from tests.fakes.registry import MANIFEST, FakeRegistry
from tests.support.containerd import CONTAINERD2, STABLE, serve_containerd
from tests.support.containerd import Containerd as Served

pytestmark = [pytest.mark.root, pytest.mark.containerd, pytest.mark.timeout(120)]

REPOSITORY, KEPT = "demo/app", "example.com/kept:1"
SIZE, SMALL = 3 << 20, 1000
VERSIONS = [
    pytest.param(STABLE, id="1"),
    pytest.param(CONTAINERD2, id="2", marks=pytest.mark.containerd2),
]


@pytest.fixture(scope="module", params=VERSIONS)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    """A containerd of this module's own."""
    with serve_containerd(programs=request.param) as served:
        yield served


@dataclass
class World:
    """An image in a registry, and a namespace of containerd that has its manifest."""

    registry: FakeRegistry
    namespace: Namespace
    place: Place
    blobs: Blobs
    wanted: Wanted
    layer: bytes
    events: EventLog

    @property
    def name(self) -> str:
        return str(self.wanted.image)

    @property
    def path(self) -> str:
        return f"/v2/{REPOSITORY}/blobs/{Digest.of(self.layer)}"

    def ranges(self) -> list[str]:
        """Of the requests for the layer."""
        return [asked.range for asked in self.registry.asked(str(Digest.of(self.layer)))]

    async def held(self) -> bool:
        """Whether containerd has the layer, whole."""
        info = await self.namespace.content.info(Digest.of(self.layer))
        return info is not None and info.size == len(self.layer)


class Room:
    """Bytes that the disk may take."""

    left = 1 << 40

    def __call__(self) -> int:
        return self.left


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.fixture
async def world(served: Served, room: Room) -> AsyncIterator[World]:
    """All of it, with a layer that no other test has."""
    layer, containerd = os.urandom(SIZE), Containerd(served.socket)
    namespace = containerd.namespace(f"b-{os.urandom(4).hex()}")
    async with FakeRegistry() as fake, asyncio.TaskGroup() as group:
        fake.put_image(REPOSITORY, "1", [os.urandom(SMALL), layer])
        config = RegistryConfig(plain_http=(fake.address,), patience=Patience(attempts=1))
        async with Registry(config) as registry:
            reference = Reference.parse(f"{fake.address}/{REPOSITORY}:1")
            wanted = await _resolved(registry, reference)
            # First, because containerd collects as it starts what no image refers to.
            target = Target(MANIFEST, wanted.manifest_digest, len(wanted.blobs[1].data))
            await namespace.images.create(ImageRecord(KEPT, target, {}))
            for blob in wanted.blobs:
                await namespace.content.put(f"doc-{blob.digest}", blob.digest, blob.data, blob.labels)

            async def prepare(_: str) -> Wanted:
                return wanted

            place = Place(namespace, "imagecached")
            events = EventLog()
            blobs = Blobs(registry, [place], group, prepare=prepare, room=room, events=events)
            fake.requests.clear()
            yield World(fake, namespace, place, blobs, wanted, layer, events)
    await containerd.close()


async def _resolved(registry: Registry, reference: Reference) -> Wanted:
    """What is wanted of the image that the registry has."""
    found = await registry.resolve(reference, Platform("linux", "amd64"))
    image = StoredImage(
        name=str(reference),
        target=found.target,
        manifest_digest=found.manifest_digest,
        platform=found.config.platform,
        diff_ids=found.config.diff_ids,
        chain_id=chain_ids(found.config.diff_ids)[-1],
        manifest=found.manifest.raw,
        config=found.config.raw,
    )
    return wanted_of(image, "default", "imagecached")


async def test_a_fetch_that_was_cut_short_goes_on(world: World) -> None:
    """Leaving ends it; the next one asks for the rest only, and reads the whole back."""
    gate = asyncio.Event()
    world.registry.script(world.path, faults.gated(gate, after=2 << 20))
    fetch = world.blobs.fetch(world.name)
    while fetch.progress().state != "failed" and not any(
        one.done >= 2 << 20 for one in fetch.progress().layers
    ):
        await asyncio.sleep(0)
    fetch.leave()
    with pytest.raises(asyncio.CancelledError):
        await fetch.wait()
    assert not await world.held()
    await world.blobs.fetch(world.name).wait()
    assert world.ranges() == ["", f"bytes={2 << 20}-{SIZE - 1}"]
    assert await world.held()


def broken_off(data: bytes) -> Chunks:
    """A source that gives ``data`` and then breaks."""

    @asynccontextmanager
    async def chunks(_: int) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        async def pieces() -> AsyncGenerator[bytes, None]:
            yield data
            raise Unavailable("broken")

        async with aclosing(pieces()) as stream:
            yield stream

    return chunks


async def test_wrong_bytes_of_an_earlier_try(world: World) -> None:
    """They are found when the blob is whole, and it is fetched anew."""
    with pytest.raises(Unavailable, match="broken"):
        await world.place.write_layer(world.wanted.layers[1], broken_off(bytes(1 << 20)), lambda _: None)
    await world.blobs.fetch(world.name).wait()
    assert world.ranges() == [f"bytes={1 << 20}-{SIZE - 1}", ""]
    assert await world.held()


async def test_a_registry_that_sends_wrong_bytes(world: World) -> None:
    """It is asked twice; nothing of what it sent is kept; another time it may be right."""
    world.registry.script(world.path, faults.corrupt(), faults.corrupt())
    with pytest.raises(Corrupt, match=str(Digest.of(world.layer))):
        await world.blobs.fetch(world.name).wait()
    assert world.ranges() == ["", ""]
    assert not await world.held()
    assert await world.namespace.content.ingests() == []
    await world.blobs.fetch(world.name).wait()
    assert await world.held()


async def test_no_room(world: World, room: Room) -> None:
    """Nothing is asked of the registry where the blobs, or what they will be unpacked to, would not fit."""
    room.left = 2 * (SIZE + SMALL)
    with pytest.raises(OutOfSpace, match="no room"):
        await world.blobs.fetch(world.name, spare=3).wait()
    assert world.ranges() == []
    [failed] = world.events.recent()
    assert (failed.kind, failed.subject) == ("blobs_failed", world.name)
    assert "no room" in failed.facts["reason"]
    await world.blobs.fetch(world.name, spare=2).wait()
    assert await world.held()


async def test_many_ask_at_once(world: World) -> None:
    """One request; all hear of the end; one that leaves does not end it for the others."""
    gate = asyncio.Event()
    world.registry.script(world.path, faults.gated(gate))
    fetches = [world.blobs.fetch(world.name) for _ in range(5)]
    while not world.ranges():
        await asyncio.sleep(0)
    fetches.pop().leave()
    gate.set()
    results = [await fetch.wait() for fetch in fetches]
    assert {result.chain_id for result in results} == {world.wanted.chain[-1]}
    assert world.ranges() == [""]


async def test_one_layer_of_many(world: World) -> None:
    """Only that blob is asked for; the rest of the image is not."""
    base = world.wanted.layers[0].descriptor.digest
    fetch = world.blobs.fetch(world.name, only=base)
    await fetch.wait()
    assert [one.digest for one in fetch.progress().layers] == [base]
    assert len(world.registry.asked("/blobs/")) == 1
    assert not await world.held()
    await world.blobs.fetch(world.name).wait()
    assert await world.held()


async def test_what_is_there_is_not_fetched_and_stays(world: World, served: Served) -> None:
    """The manifest keeps the blobs through a collection, as long as an image keeps the manifest."""
    await world.blobs.fetch(world.name).wait()
    await world.namespace.leases.create("a", {})
    await world.namespace.leases.delete("a", sync=True)
    assert await world.held()
    again = world.blobs.fetch(world.name)
    await again.wait()
    assert [(one.source, one.done) for one in again.progress().layers] == [
        ("present", SMALL),
        ("present", SIZE),
    ]
    assert len(world.ranges()) == 1
    await world.namespace.images.delete(KEPT, sync=True)
    assert not await world.held()
