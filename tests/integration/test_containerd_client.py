"""Our client of containerd's socket against the real containerd: every door, errors, resumption, restart."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from google.protobuf.empty_pb2 import Empty

from imagecached import aio
from imagecached.containerd import Containerd, Event, ImageRecord, Namespace, Target, methods
from imagecached.containerd.content import Chunks
from imagecached.containerd.wire import Wire
from imagecached.errors import AlreadyExists, Corrupt, NotFound, Unavailable
from imagecached.oci.digest import Digest
from tests.support.containerd import CONTAINERD2, STABLE, serve_containerd
from tests.support.containerd import Containerd as Served

pytestmark = [pytest.mark.root, pytest.mark.containerd, pytest.mark.timeout(120)]

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


VERSIONS = [
    pytest.param(STABLE, id="1"),
    pytest.param(CONTAINERD2, id="2", marks=pytest.mark.containerd2),
]


@pytest.fixture(scope="module", params=VERSIONS)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    """A containerd of this module's own."""
    with serve_containerd(programs=request.param) as served:
        yield served


@pytest.fixture
async def client(served: Served) -> AsyncIterator[Containerd]:
    """Connected to it."""
    containerd = Containerd(served.socket)
    yield containerd
    await containerd.close()


@pytest.fixture
async def namespace(client: Containerd) -> AsyncIterator[Namespace]:
    """One that no other test uses, with a lease on what is made."""
    bare = client.namespace(f"t-{os.urandom(4).hex()}")
    await bare.leases.create("test", {"containerd.io/gc.expire": "2099-01-01T00:00:00Z"})
    yield bare.leased("test")
    await bare.leases.delete("test")


def whole(data: bytes) -> Chunks:
    """A blob that may be read from any offset."""

    @asynccontextmanager
    async def chunks(offset: int) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        async def pieces() -> AsyncGenerator[bytes, None]:
            yield data[offset:]

        async with aclosing(pieces()) as stream:
            yield stream

    return chunks


async def test_what_containerd_says_of_itself(client: Containerd, served: Served) -> None:
    """Version, installation and plugins; the ones that failed say why."""
    assert (await client.version()).parts >= (1, 6)
    assert len((await client.server()).uuid) == 36
    plugins = await client.plugins(["type==io.containerd.snapshotter.v1"])
    overlay = next(plugin for plugin in plugins if plugin.id == "overlayfs")
    assert overlay.exports["root"].startswith(str(served.directory))
    assert overlay.error == ""


async def test_a_lease_is_made_listed_and_ended(namespace: Namespace) -> None:
    """Its labels come back; the same name twice is refused; ending it twice is not."""
    await namespace.leases.create("mine", {"imagecached.dev/for": "x"})
    with pytest.raises(AlreadyExists):
        await namespace.leases.create("mine", {})
    found = {lease.id: lease for lease in await namespace.leases.listed()}
    assert found["mine"].labels == {"imagecached.dev/for": "x"}
    assert found["mine"].created > 1e9
    await namespace.leases.delete("mine")
    await namespace.leases.delete("mine")
    assert [lease.id for lease in await namespace.leases.listed()] == ["test"]


async def test_small_blobs_are_put_labelled_read_and_deleted(namespace: Namespace) -> None:
    """Putting twice changes labels only; a label with an empty value goes away."""
    data = b'{"x": 1}'
    digest = Digest.of(data)
    assert await namespace.content.info(digest) is None
    for value in ("one", "two"):
        await namespace.content.put(f"r-{digest}", digest, data, {"a": value, "b": "kept"})
    info = await namespace.content.info(digest)
    assert info is not None
    assert (info.size, info.labels["a"]) == (len(data), "two")
    await namespace.content.label(digest, {"a": ""})
    [listed] = await namespace.content.listed()
    assert dict(listed.labels) == {"b": "kept"}
    async with aclosing(namespace.content.read(digest)) as pieces:
        assert b"".join([piece async for piece in pieces]) == data
    await namespace.content.delete(digest)
    await namespace.content.delete(digest)
    assert await namespace.content.info(digest) is None


async def test_wrong_bytes_are_refused(namespace: Namespace) -> None:
    """Nothing of them is kept."""
    digest = Digest.of(b"right")
    with pytest.raises(Corrupt, match=str(digest)):
        await namespace.content.put("wrong", digest, b"wrong", {})
    with pytest.raises(Corrupt, match=str(digest)):
        await namespace.content.write(
            "wrong-2", digest, 5, whole(b"wrong"), labels={}, on_offset=lambda _: None
        )
    assert await namespace.content.info(digest) is None
    assert "wrong-2" not in [ingest.ref for ingest in await namespace.content.ingests()]


async def test_a_blob_is_resumed_where_it_broke_off(namespace: Namespace) -> None:
    """The second writer is asked for the rest only; a third finds the blob there."""
    data = os.urandom(5 << 20)
    digest, ref, offsets, asked = Digest.of(data), "big", [0], []

    @asynccontextmanager
    async def breaking(offset: int) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        async def pieces() -> AsyncGenerator[bytes, None]:
            asked.append(offset)
            yield data[offset : offset + (2 << 20)]
            if len(asked) == 1:
                raise Unavailable("broken")
            yield data[offset + (2 << 20) :]

        async with aclosing(pieces()) as stream:
            yield stream

    async def write() -> int:
        return await namespace.content.write(
            ref, digest, len(data), breaking, labels={"l": "1"}, on_offset=offsets.append
        )

    with pytest.raises(Unavailable, match="broken"):
        await write()
    [ingest] = await namespace.content.ingests()
    assert (ingest.ref, ingest.offset, ingest.total) == (ref, 2 << 20, len(data))
    assert await write() == 2 << 20
    assert asked == [0, 2 << 20]
    assert offsets[-1] == len(data)
    assert await write() == len(data)
    assert asked == [0, 2 << 20]
    info = await namespace.content.info(digest)
    assert info is not None
    assert info.labels["l"] == "1"


async def test_image_records(namespace: Namespace) -> None:
    """Made, found, pointed elsewhere with their other labels kept, unlabelled, deleted."""
    data = b"{}"
    target = Target(MANIFEST, Digest.of(data), len(data))
    record = ImageRecord("example.com/a:1", target, {"x": "1", "y": "1"})
    await namespace.images.create(record)
    with pytest.raises(AlreadyExists):
        await namespace.images.create(record)
    assert await namespace.images.get(record.name) == record
    other = Target(MANIFEST, Digest.of(b"[]"), 2)
    await namespace.images.retarget(ImageRecord(record.name, other, {"x": "2"}))
    assert await namespace.images.listed() == [ImageRecord(record.name, other, {"x": "2", "y": "1"})]
    await namespace.images.label(record, {"y": ""})
    found = await namespace.images.get(record.name)
    assert found is not None
    assert dict(found.labels) == {"x": "2"}
    with pytest.raises(NotFound):
        await namespace.images.label(ImageRecord("example.com/b:1", other, {}), {"y": "1"})
    await namespace.images.delete(record.name, sync=True)
    await namespace.images.delete(record.name)
    assert await namespace.images.get(record.name) is None


async def test_snapshots(namespace: Namespace) -> None:
    """An active one is made once and removed; what is not there is None."""
    snapshots = namespace.snapshots("native")
    assert await snapshots.prepare("k", "", {"containerd.io/gc.root": "x"})
    assert not await snapshots.prepare("k", "", {})
    info = await snapshots.stat("k")
    assert info is not None
    assert (info.kind, info.parent) == ("active", "")
    assert [each.name for each in await snapshots.listed(["kind==active"])] == ["k"]
    await snapshots.remove("k")
    await snapshots.remove("k")
    assert await snapshots.stat("k") is None
    assert await namespace.containers() == []


async def test_events_tell_names(client: Containerd, namespace: Namespace) -> None:
    """Of images and snapshots, with their namespace; containerd holds none back while nobody reads."""
    seen: list[Event] = []
    listening = asyncio.Event()

    async def listen() -> None:
        mine = f"namespace=={namespace.name}"
        async with aclosing(client.events([mine])) as events:
            async for event in events:
                listening.set()
                seen.append(event)
                if event.topic == "/images/delete":
                    return

    async def act() -> None:
        for number in range(200):  # the subscription begins some time after the call does
            await namespace.snapshots("native").prepare(f"e{number}", "", {})
            if listening.is_set():
                break
        await namespace.images.create(
            ImageRecord("example.com/e:1", Target(MANIFEST, Digest.of(b"e"), 1), {})
        )
        await namespace.images.delete("example.com/e:1")

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(listen())
        group.create_task(act())
    assert seen[0].topic == "/snapshot/prepare"
    assert seen[0].snapshotter in ("native", "")  # containerd 1.6 does not say
    assert [(event.topic, event.name) for event in seen if event.topic.startswith("/images")] == [
        ("/images/create", "example.com/e:1"),
        ("/images/delete", "example.com/e:1"),
    ]
    assert {event.namespace for event in seen} == {namespace.name}


async def test_nobody_there(tmp_path: Path) -> None:
    """A missing socket, or one that nobody serves, is Unavailable and names the path."""
    containerd = Containerd(tmp_path / "none.sock")
    with pytest.raises(Unavailable, match=r"none\.sock"):
        await containerd.version()
    await containerd.close()


async def test_a_silent_server_is_given_up(tmp_path: Path) -> None:
    """The deadline ends a call; nothing hangs."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.sock"))
        listener.listen()
        wire = Wire(tmp_path / "s.sock")
        with pytest.raises(Unavailable, match="Version/Version: no answer in time"):
            await wire.ask(methods.VERSION, Empty(), seconds=0.1)
        wire.close()


async def test_containerd_goes_and_comes_back(served: Served) -> None:
    """Calls fail while it is away, a subscription ends, and the same client works again afterwards."""
    containerd = Containerd(served.socket)
    before = await containerd.server()
    async with aclosing(containerd.events()) as events, asyncio.TaskGroup() as group:
        waiting = group.create_task(_unavailable(events))
        await containerd.version()
        await aio.finish(served.stop)
        await waiting
    with pytest.raises(Unavailable):
        await containerd.server()
    served.start()  # not in a thread: it dies with the thread that started it
    assert await containerd.server() == before
    await containerd.close()


async def _unavailable(events: AsyncGenerator[Event, None]) -> None:
    with pytest.raises(Unavailable):
        async for _ in events:
            pass


async def test_cancelled_while_the_connection_breaks(served: Served) -> None:
    """Both at once, as when a node shuts down: the task ends, and does not take it for an error to go on
    after; a break alone leaves no cancellation behind.
    """
    for cancel in (True, False):
        containerd = Containerd(served.socket)
        await containerd.version()
        seen: list[BaseException] = []

        async def listen(seen: list[BaseException], containerd: Containerd) -> None:
            try:
                async with aclosing(containerd.events()) as events:
                    async for _ in events:
                        pass
            except Unavailable as error:
                seen.append(error)
                task = asyncio.current_task()
                assert task is not None
                assert task.cancelling() == 0

        async with asyncio.TaskGroup() as group:
            task = group.create_task(listen(seen, containerd))
            for _ in range(3):  # let it come to wait
                await containerd.version()
            if cancel:
                task.cancel()
            await containerd.close()
        assert task.cancelled() == cancel
        assert len(seen) == (not cancel)
