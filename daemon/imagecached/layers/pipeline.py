"""A layer's way from the network to its file, and the way back of every error.

    event loop   chunks, at most INBOX_BYTES waiting    ──► thread A   digest of the blob, inflate
    thread A     filled buffers, RING of BUFFER_BYTES   ──► thread B   digest of the tar, write, scan, finish

Invariants. A layer costs INBOX_BYTES, RING times BUFFER_BYTES and what its codec needs, whatever it holds.
A full queue stops who fills it, so a slow disk slows the network. Size and digest of the blob are checked
before the end of the tar is passed on, so ``LayerWriter.finish`` never runs for a wrong blob. The first error
of any part stops all parts and is the one raised. No thread outlives the call, cancelled or not.

The blob is digested on thread A: for gzip, A (inflate) and B (digest, write, writeback) then carry about the
same load, which is the best that two cores can do. A small blob is first taken whole, then inflated and
written by one thread: two cost more than they win.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from mmap import mmap
from queue import SimpleQueue
from threading import Lock
from types import TracebackType
from typing import Final

from imagecached.errors import Corrupt
from imagecached.layers.codec import inflater
from imagecached.layers.layerfile import DATA_OFFSET, LayerInfo, LayerWriter
from imagecached.layers.limits import Limits
from imagecached.layers.writeback import Writeback
from imagecached.oci.digest import Digest
from imagecached.oci.documents import Descriptor

INBOX_BYTES: Final = 2 << 20
BUFFER_BYTES: Final = 512 << 10
RING: Final = 6
SMALL_BYTES: Final = 1 << 20


async def write_layer(
    chunks: AsyncIterable[bytes],
    fd: int,
    *,
    blob: Descriptor,
    diff_id: Digest,
    limits: Limits,
    check_space: Callable[[int], None],
    on_bytes: Callable[[int], None],
) -> LayerInfo:
    """Make ``fd`` the layer file of the compressed ``chunks`` of ``blob``; ``chunks`` is closed in any case.

    ``fd``: an empty regular file open for reading and writing; it stays the caller's, and is of no use after
    an error. ``check_space`` gets the number of tar bytes there will be after the next write, on a worker
    thread, and may raise. ``on_bytes`` gets the size of each chunk taken, on the event loop.

    Raises what ``chunks`` and the callbacks raise; Corrupt for a wrong size, digest, compression, tar or
    diffID and for a limit passed; Unsupported; OutOfSpace.
    """
    inbox = _Inbox(blob)
    parts = _Parts(inbox.stop)

    def write(pieces: Iterator[memoryview]) -> LayerInfo:
        writer, writeback = LayerWriter(fd, limits, diff_id), Writeback(fd)
        total = 0
        for piece in pieces:
            total += len(piece)
            check_space(total)
            writer.feed(piece)
            writeback.reached(DATA_OFFSET + total)
        return writer.finish()

    try:
        with parts:
            if blob.size <= SMALL_BYTES:
                await inbox.feed(chunks, on_bytes)
                parts.start(lambda: write(_alone(inbox)))
            else:
                ring = _Ring(inbox)
                parts.stops.append(ring.stop)
                parts.start(ring.fill)
                parts.start(lambda: write(ring.pieces()))
                await inbox.feed(chunks, on_bytes)
    finally:
        await parts.join()
    return parts.outcome()


class _Stopped(Exception):
    """Another part has failed: unwind. Never leaves this module."""


class _Parts:
    """The threads of one layer and, as a context, the event loop's part of it.

    A part that ends by an error stops the others. The first error is kept for :meth:`outcome`; only a
    cancellation also passes through the context.
    """

    def __init__(self, *stops: Callable[[], None]) -> None:
        self.stops = list(stops)
        self._error: BaseException | None = None
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="layer")
        self._jobs: list[asyncio.Future[LayerInfo | None]] = []

    def start(self, job: Callable[[], LayerInfo | None]) -> None:
        self._jobs.append(asyncio.get_running_loop().run_in_executor(self._pool, self._guarded, job))

    def _guarded(self, job: Callable[[], LayerInfo | None]) -> LayerInfo | None:
        with self:
            return job()
        return None

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        if error is None:
            return False
        with self._lock:
            first = self._error is None
            if first:
                self._error = error
        if first:
            for stop in self.stops:
                stop()
        return isinstance(error, Exception)

    async def join(self) -> None:
        """Wait until every thread has ended; a cancellation that comes meanwhile is raised then."""
        cancelled: asyncio.CancelledError | None = None
        while running := [job for job in self._jobs if not job.done()]:
            try:
                await asyncio.wait(running)
            except asyncio.CancelledError as error:
                cancelled = error
                self.__exit__(None, error, None)
        self._pool.shutdown()
        if cancelled is not None:
            raise cancelled

    def outcome(self) -> LayerInfo:
        """What the last thread started gave, or the first error."""
        if self._error is not None:
            raise self._error
        info = self._jobs[-1].result()
        assert info is not None
        return info


class _Inbox:
    """Chunks on their way from the event loop to the thread that inflates: a codec's source that checks.

    Digests what is taken and raises Corrupt instead of an end that comes with the wrong size or digest.
    """

    def __init__(self, blob: Descriptor) -> None:
        self._blob = blob
        self._digest = blob.digest.hasher()
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._scope: asyncio.Timeout | None = None
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._given = 0  # written by the event loop only
        self._taken = 0  # written by the thread only
        self._rest = memoryview(b"")
        self._ended = False
        self._stopped = False

    async def feed(self, chunks: AsyncIterable[bytes], on_bytes: Callable[[int], None]) -> None:
        """Put all of ``chunks`` in, never much more than INBOX_BYTES at once; TimeoutError when stopped."""
        try:
            # The scope is how a thread's error reaches a loop that waits for the network.
            async with asyncio.timeout(None) as self._scope:
                async for chunk in chunks:
                    self._put(chunk)
                    on_bytes(len(chunk))
                    await self._wait_for_room()
        finally:
            self._scope = None
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()
        self._queue.put(None)

    def _put(self, chunk: bytes) -> None:
        self._given += len(chunk)
        if self._given > self._blob.size:
            raise Corrupt(f"blob {self._blob.digest}: more than the {self._blob.size} bytes promised")
        if chunk:
            self._queue.put(chunk)

    async def _wait_for_room(self) -> None:
        while self._given - self._taken > INBOX_BYTES:
            self._room.clear()
            if self._given - self._taken > INBOX_BYTES:
                await self._room.wait()

    def stop(self) -> None:
        """Make both ends give up; from any thread."""
        self._stopped = True
        self._queue.put(None)
        self._loop.call_soon_threadsafe(self._interrupt)

    def check(self) -> None:
        """Raise if another part has failed."""
        if self._stopped:
            raise _Stopped

    def _interrupt(self) -> None:
        if self._scope is not None:
            self._scope.reschedule(self._loop.time())

    def read(self, _size: int = -1, /) -> memoryview:
        """The rest of the chunk begun, or the next one."""
        if not self._rest and not self._ended:
            self._take()
        piece, self._rest = self._rest, memoryview(b"")
        return piece

    def readinto(self, buffer: memoryview, /) -> int:
        piece = self.read()
        count = min(len(piece), len(buffer))
        buffer[:count] = piece[:count]
        self._rest = piece[count:]
        return count

    def _take(self) -> None:
        chunk = self._queue.get()
        self.check()
        if chunk is None:
            self._check_blob()
            self._ended = True
            return
        self._rest = memoryview(chunk)
        self._digest.update(chunk)
        self._taken += len(chunk)
        if not self._room.is_set() and self._given - self._taken <= INBOX_BYTES // 2:
            self._loop.call_soon_threadsafe(self._room.set)

    def _check_blob(self) -> None:
        blob, found = self._blob, f"{self._blob.digest.algorithm}:{self._digest.hexdigest()}"
        if self._taken != blob.size:
            raise Corrupt(f"blob {blob.digest}: {self._taken} bytes instead of {blob.size}")
        if found != blob.digest:
            raise Corrupt(f"blob {blob.digest}: the bytes have digest {found}")

    def inflated(self, next_buffer: Callable[[], memoryview]) -> Iterator[tuple[memoryview, int]]:
        """The tar as filled buffers and how many bytes of each count; for the thread that inflates."""
        codec = inflater(self._blob.media_type, self)
        while count := codec.readinto(buffer := next_buffer()):
            self.check()
            yield buffer, count
        self.check()
        if not self._ended:
            raise Corrupt(f"blob {self._blob.digest}: bytes after the end of the tar stream")


def _alone(inbox: _Inbox) -> Iterator[memoryview]:
    """The tar in pieces of one buffer, inflated by the thread that writes."""
    only = memoryview(bytearray(BUFFER_BYTES))
    for buffer, count in inbox.inflated(lambda: only):
        yield buffer[:count]


class _Ring:
    """Buffers that go round between the thread that inflates and the thread that writes."""

    def __init__(self, inbox: _Inbox) -> None:
        self._inbox = inbox
        self._filled: SimpleQueue[tuple[memoryview, int] | None] = SimpleQueue()
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        area = memoryview(
            mmap(-1, RING * BUFFER_BYTES)
        )  # the system has it back as soon as the layer is done
        for start in range(0, len(area), BUFFER_BYTES):
            self._free.put(area[start : start + BUFFER_BYTES])

    def fill(self) -> None:
        """Inflate all of the blob, then mark the end."""
        for filled in self._inbox.inflated(self._next_free):
            self._filled.put(filled)
        self._filled.put(None)

    def _next_free(self) -> memoryview:
        buffer = self._free.get()
        self._inbox.check()
        return buffer

    def pieces(self) -> Iterator[memoryview]:
        """The tar in pieces, each valid until the next is asked for."""
        while filled := self._filled.get():
            self._inbox.check()
            buffer, count = filled
            yield buffer[:count]
            self._free.put(buffer)
        self._inbox.check()

    def stop(self) -> None:
        """Wake both threads; called when the inbox is stopped."""
        self._free.put(memoryview(b""))
        self._filled.put(None)
