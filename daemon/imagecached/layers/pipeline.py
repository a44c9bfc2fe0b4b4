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
from collections.abc import AsyncIterable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Lock
from types import TracebackType
from typing import Final

from imagecached.layers.layerfile import DATA_OFFSET, LayerInfo, LayerWriter
from imagecached.layers.limits import Limits
from imagecached.layers.queues import Inbox, Ring, alone
from imagecached.layers.writeback import Writeback
from imagecached.oci.digest import Digest
from imagecached.oci.documents import Descriptor

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
    inbox = Inbox(blob)
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
                parts.start(lambda: write(alone(inbox)))
            else:
                ring = Ring(inbox)
                parts.stops.append(ring.stop)
                parts.start(ring.fill)
                parts.start(lambda: write(ring.pieces()))
                await inbox.feed(chunks, on_bytes)
    finally:
        await parts.join()
    return replace(parts.outcome(), inflate_seconds=inbox.inflate_seconds)


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
