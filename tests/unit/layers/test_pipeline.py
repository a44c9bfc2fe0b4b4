"""The pipeline: bytes through three parts, errors and cancellation back through all of them."""

from __future__ import annotations

import asyncio
import gzip
import os
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from imagecached.errors import Corrupt, ImagecachedError, OutOfSpace, Unavailable
from imagecached.layers import pipeline
from imagecached.layers.erofs import SUPERBLOCK_OFFSET
from imagecached.layers.layerfile import LayerInfo, LayerWriter, verify_layer
from imagecached.layers.limits import Limits
from imagecached.layers.pipeline import SMALL_BYTES, write_layer
from imagecached.layers.queues import BUFFER_BYTES, INBOX_BYTES, RING
from imagecached.layers.reader import LayerReader
from imagecached.oci.digest import Digest
from imagecached.oci.documents import Descriptor
from tests.support import tars

TAR = "application/vnd.oci.image.layer.v1.tar"
GZIP = f"{TAR}+gzip"
SMALL = os.urandom(100_000)
LARGE = os.urandom(INBOX_BYTES + RING * BUFFER_BYTES + (2 << 20))
WAIT = 20


class FakeWriter:
    """A writer that keeps what it gets and can block or break at either call."""

    instances: list[FakeWriter]
    feeding: Callable[[FakeWriter], None]
    finishing: Callable[[FakeWriter], None]

    def __init__(self, fd: int, limits: Limits, expected: Digest | None) -> None:
        self.pieces: list[bytes] = []
        self.total = 0
        self.finished = False
        self.instances.append(self)

    def feed(self, data: bytes | memoryview) -> None:
        type(self).feeding(self)
        self.total += len(data)
        if self.total <= len(LARGE):
            self.pieces.append(bytes(data))

    def finish(self) -> LayerInfo:
        type(self).finishing(self)
        self.finished = True
        return LayerInfo(Digest.of(b"".join(self.pieces)), self.total, self.total, 1)


def nothing(_writer: FakeWriter) -> None:
    pass


@pytest.fixture(autouse=True)
def writers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[FakeWriter]]:
    """The writers made; afterwards no thread of the pipeline is left."""
    FakeWriter.instances = []
    FakeWriter.feeding = FakeWriter.finishing = nothing
    monkeypatch.setattr(pipeline, "LayerWriter", FakeWriter)
    yield FakeWriter.instances
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("layer")]


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    file = os.open(tmp_path / "layer", os.O_RDWR | os.O_CREAT)
    yield file
    os.close(file)


class Network:
    """Yields ``data`` in chunks, then ends, breaks, or stalls until cancelled; counts what was taken."""

    def __init__(self, data: bytes, *, chunk: int = 65_536, then: Exception | str = "end") -> None:
        self.data, self.chunk, self.then = data, chunk, then
        self.taken = 0
        self.closed = False
        self.stalled = asyncio.Event()

    async def __call__(self) -> AsyncIterator[bytes]:
        try:
            for start in range(0, len(self.data), self.chunk):
                piece = self.data[start : start + self.chunk]
                self.taken += len(piece)
                yield piece
                await asyncio.sleep(0)
            if isinstance(self.then, Exception):
                raise self.then
            if self.then == "stall":
                self.stalled.set()
                await asyncio.Event().wait()
        finally:
            self.closed = True


async def write(
    network: Network,
    fd: int,
    *,
    promised: bytes | None = None,
    media_type: str = GZIP,
    check_space: Callable[[int], None] = lambda _total: None,
    on_bytes: Callable[[int], None] = lambda _count: None,
) -> LayerInfo:
    blob = network.data if promised is None else promised
    return await write_layer(
        network(),
        fd,
        blob=Descriptor(media_type, Digest.of(blob), len(blob)),
        diff_id=Digest.of(b""),
        limits=Limits(),
        check_space=check_space,
        on_bytes=on_bytes,
    )


@pytest.mark.parametrize("data", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
@pytest.mark.parametrize("chunk", [4001, 65_536, 5 << 20])
async def test_the_tar_reaches_the_writer_whole(
    fd: int, writers: list[FakeWriter], data: bytes, chunk: int
) -> None:
    """In order and unchanged, on the short and on the long way; progress and space are told on the way."""
    network = Network(gzip.compress(data, 1), chunk=chunk)
    told: list[int] = []
    totals: list[int] = []
    info = await write(network, fd, check_space=totals.append, on_bytes=told.append)
    assert info.diff_id == Digest.of(data)
    assert sum(told) == len(network.data)
    assert totals == sorted(totals)
    assert (totals or [0])[-1] == len(data)
    assert writers[0].finished
    assert network.closed


def truncated(blob: bytes) -> bytes:
    return blob[:-1]


def extended(blob: bytes) -> bytes:
    return blob + b"\0"


def changed(blob: bytes) -> bytes:
    return blob[:-9] + bytes([blob[-9] ^ 1]) + blob[-8:]


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("media_type", [TAR, GZIP])
@pytest.mark.parametrize("spoil", [truncated, extended, changed])
async def test_a_wrong_blob_is_never_finished(
    fd: int,
    writers: list[FakeWriter],
    data: bytes,
    media_type: str,
    spoil: Callable[[bytes], bytes],
) -> None:
    """Too short, too long or changed: Corrupt, and the writer's finish has not run."""
    sent = data if media_type == TAR else gzip.compress(data, 1)
    for promised, network in ((spoil(sent), Network(sent)), (sent, Network(spoil(sent)))):
        with pytest.raises(Corrupt):
            await asyncio.wait_for(write(network, fd, promised=promised, media_type=media_type), WAIT)
        assert network.closed
    assert not any(writer.finished for writer in writers)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("error", [Unavailable("reset"), TimeoutError("slow"), ValueError("bug")], ids=repr)
async def test_an_error_of_the_network_is_raised_as_it_is(
    fd: int, writers: list[FakeWriter], data: bytes, error: Exception
) -> None:
    """Both threads end, nothing is finished."""
    blob = gzip.compress(data, 1)
    with pytest.raises(type(error)) as caught:
        await write(Network(blob[: len(blob) // 2], then=error), fd, promised=blob)
    assert caught.value is error
    assert not any(writer.finished for writer in writers)


@pytest.mark.parametrize("then", ["end", "stall"])
@pytest.mark.parametrize("where", ["feed", "check_space", "on_bytes"])
async def test_an_error_of_any_part_stops_the_others(fd: int, where: str, then: str) -> None:
    """Also a network that never says another word; the network is closed."""
    error = OutOfSpace("full")

    def fail(_any: object) -> None:
        raise error

    network = Network(gzip.compress(LARGE, 1), then=then)
    if where == "feed":
        FakeWriter.feeding = fail
    with pytest.raises(OutOfSpace) as caught:
        await asyncio.wait_for(
            write(
                network,
                fd,
                promised=network.data + b"more",
                check_space=fail if where == "check_space" else lambda _total: None,
                on_bytes=fail if where == "on_bytes" else lambda _count: None,
            ),
            WAIT,
        )
    assert caught.value is error
    assert network.closed


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
async def test_an_error_of_finish_is_raised(fd: int, data: bytes) -> None:
    """A wrong diffID or a disk that fills up at the sync."""

    def fail(_writer: FakeWriter) -> None:
        raise Corrupt("diffID")

    FakeWriter.finishing = fail
    with pytest.raises(Corrupt, match="diffID"):
        await write(Network(gzip.compress(data, 1)), fd)


async def test_the_first_error_wins(fd: int) -> None:
    """What breaks while the parts unwind does not hide why they unwind."""

    class Rude(Network):
        async def __call__(self) -> AsyncIterator[bytes]:
            try:
                async for piece in super().__call__():
                    yield piece
            finally:
                raise ValueError("second")

    def fail(_writer: FakeWriter) -> None:
        raise OutOfSpace("first")

    FakeWriter.feeding = fail
    with pytest.raises(OutOfSpace, match="first"):
        await asyncio.wait_for(write(Rude(gzip.compress(LARGE, 1), then="stall"), fd), WAIT)


async def test_an_unknown_media_type_is_refused(fd: int) -> None:
    """Through the threads as well."""
    with pytest.raises(ImagecachedError, match=r"vnd\.other"):
        await write(Network(LARGE), fd, media_type="application/vnd.other")


class Gate:
    """Blocks a thread until opened, and tells the event loop that it does."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._opened = threading.Event()
        self.reached = asyncio.Event()

    def __call__(self, _writer: FakeWriter) -> None:
        self._loop.call_soon_threadsafe(self.reached.set)
        assert self._opened.wait(WAIT)

    def open(self) -> None:
        self._opened.set()


async def cancelled(task: asyncio.Task[LayerInfo], *, then: Callable[[], None] = lambda: None) -> None:
    task.cancel()
    await asyncio.sleep(0)
    then()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, WAIT)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
async def test_cancelled_while_the_network_is_silent(fd: int, writers: list[FakeWriter], data: bytes) -> None:
    """The chunks are closed, the threads have ended, nothing is finished."""
    blob = gzip.compress(data, 1)
    network = Network(blob[:-1], then="stall")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(write(network, fd, promised=blob))
        await network.stalled.wait()
        await cancelled(task)
    assert network.closed
    assert not any(writer.finished for writer in writers)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
async def test_cancelled_while_a_thread_writes(fd: int, writers: list[FakeWriter], data: bytes) -> None:
    """The call waits for the thread inside the writer, then raises; a second cancel does not tear it."""
    gate = FakeWriter.feeding = Gate()
    network = Network(gzip.compress(data, 1))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(write(network, fd))
        await gate.reached.wait()
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        await cancelled(task, then=gate.open)
    assert network.closed
    assert not any(writer.finished for writer in writers)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
async def test_cancelled_while_finishing(fd: int, data: bytes) -> None:
    """The sync is not torn: it ends, and then the cancellation is raised."""
    gate = FakeWriter.finishing = Gate()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(write(Network(gzip.compress(data, 1)), fd))
        await gate.reached.wait()
        await cancelled(task, then=gate.open)


async def test_cancelled_before_it_began(fd: int) -> None:
    """A task cancelled before its first step leaves nothing."""
    async with asyncio.TaskGroup() as group:
        await cancelled(group.create_task(write(Network(LARGE), fd)))


async def test_a_timeout_of_the_caller_stays_a_timeout(fd: int) -> None:
    """The inner scope does not swallow an outer one."""
    blob = gzip.compress(LARGE, 1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await write(Network(blob[:-1], then="stall"), fd, promised=blob)


async def test_a_slow_disk_slows_the_network(fd: int) -> None:
    """With the writer stuck, no more is taken than the queues hold, and the event loop runs on."""
    gate = FakeWriter.feeding = Gate()
    chunk = 65_536
    network = Network(LARGE, chunk=chunk)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(write(network, fd, media_type=TAR))
        await gate.reached.wait()
        taken = -1
        while taken != network.taken:
            taken = network.taken
            for _ in range(1000):
                await asyncio.sleep(0)
        assert INBOX_BYTES < taken <= INBOX_BYTES + RING * BUFFER_BYTES + 2 * chunk < len(LARGE)
        gate.open()
        assert (await task).diff_id == Digest.of(LARGE)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("padding", [0, SMALL_BYTES], ids=["small", "large"])
async def test_a_bomb_costs_no_memory(fd: int, padding: int) -> None:
    """Half a gigabyte of zeros from half a megabyte grows the process by the queues at most."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(1 << 20)
    blob = b"".join(packer.compress(zeros) for _ in range(512)) + packer.flush()
    blob += gzip.compress(os.urandom(padding), 1)
    sizes: list[int] = []
    FakeWriter.feeding = lambda _writer: sizes.append(resident())
    FakeWriter.finishing = lambda writer: writer.pieces.clear()
    before = resident() + len(LARGE)
    info = await write(Network(blob), fd)
    assert info.tar_bytes == (512 << 20) + padding
    assert max(sizes) - before < INBOX_BYTES + RING * BUFFER_BYTES + (8 << 20)


# With the real writer


@pytest.fixture
def real_writer(writers: list[FakeWriter], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "LayerWriter", LayerWriter)


@pytest.mark.usefixtures("real_writer")
@pytest.mark.parametrize("padding", [0, SMALL_BYTES], ids=["small", "large"])
@pytest.mark.parametrize("form", [GZIP, f"{TAR}+zstd", TAR])
async def test_a_blob_becomes_a_layer_file(tmp_path: Path, fd: int, form: str, padding: int) -> None:
    """The file is complete, verifies, and has the content."""
    content = os.urandom(100 + padding)
    archive = tars.tar(tars.directory("d"), tars.file("d/f", content))
    diff_id = Digest.of(archive)
    blob = archive if form == TAR else gzip.compress(archive) if form == GZIP else zstandard.compress(archive)
    info = await write_layer(
        Network(blob)(),
        fd,
        blob=Descriptor(form, Digest.of(blob), len(blob)),
        diff_id=diff_id,
        limits=Limits(),
        check_space=lambda _total: None,
        on_bytes=lambda _count: None,
    )
    assert (info.diff_id, info.tar_bytes, info.entries) == (diff_id, len(archive), 2)
    verify_layer(tmp_path / "layer", diff_id)
    with LayerReader(tmp_path / "layer") as reader:
        entry = reader.lookup(b"d/f")
        assert entry is not None
        assert b"".join(reader.read(entry)) == content


@pytest.mark.usefixtures("real_writer")
@pytest.mark.parametrize("padding", [0, SMALL_BYTES], ids=["small", "large"])
@pytest.mark.parametrize("wrong", ["blob", "diff_id"])
async def test_a_wrong_digest_leaves_no_superblock(fd: int, wrong: str, padding: int) -> None:
    """Of the blob, or of the tar in it: nothing could ever mount what is left."""
    archive = tars.tar(tars.file("f", os.urandom(100 + padding)))
    blob = gzip.compress(archive)
    right = {"blob": Digest.of(blob), "diff_id": Digest.of(archive)}
    right[wrong] = Digest.of(b"something else")
    with pytest.raises(Corrupt, match=str(right[wrong])):
        await write_layer(
            Network(blob)(),
            fd,
            blob=Descriptor(GZIP, right["blob"], len(blob)),
            diff_id=right["diff_id"],
            limits=Limits(),
            check_space=lambda _total: None,
            on_bytes=lambda _count: None,
        )
    assert os.pread(fd, 128, SUPERBLOCK_OFFSET).strip(b"\0") == b""
