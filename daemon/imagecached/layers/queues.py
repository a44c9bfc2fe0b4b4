"""The two queues of a layer: chunks to the thread that inflates, inflated buffers to the thread that writes.

Both are bounded and both give up when they are stopped: whoever waits at either end then leaves with
:class:`Stopped`. Invariant: the tar ends for the writer only if the blob had the size and digest promised.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator
from mmap import mmap
from queue import SimpleQueue
from time import thread_time
from typing import Final

from imagecached.errors import Corrupt
from imagecached.layers.codec import inflater
from imagecached.oci.documents import Descriptor

INBOX_BYTES: Final = 2 << 20
BUFFER_BYTES: Final = 1 << 20
RING: Final = 4


class Stopped(Exception):
    """Another part has failed: unwind."""


class Inbox:
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
        self.inflate_seconds = 0.0  # CPU time of digesting and inflating the blob

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
            raise Stopped

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
        while True:
            buffer = next_buffer()
            begun = thread_time()
            count = codec.readinto(buffer)
            self.inflate_seconds += thread_time() - begun
            if not count:
                break
            self.check()
            yield buffer, count
        self.check()
        if not self._ended:
            raise Corrupt(f"blob {self._blob.digest}: bytes after the end of the tar stream")


def alone(inbox: Inbox) -> Iterator[memoryview]:
    """The tar in pieces of one buffer, inflated by the thread that writes."""
    only = memoryview(bytearray(BUFFER_BYTES))
    for buffer, count in inbox.inflated(lambda: only):
        yield buffer[:count]


class Ring:
    """Buffers that go round between the thread that inflates and the thread that writes."""

    def __init__(self, inbox: Inbox) -> None:
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
