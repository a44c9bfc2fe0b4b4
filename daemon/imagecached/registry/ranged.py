"""One large blob over several ranged requests at once, given out in order.

The blob is cut into parts; at most ``connections`` parts are in memory or under way, the one that is given
out included, so memory is bounded by ``connections * chunk_bytes``. The first part is given out while it
arrives.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, Self

from imagecached.errors import Unavailable
from imagecached.registry.config import Ranged
from imagecached.registry.fetch import BlobReader


class Workers:
    """Owner of the tasks of all ranged reads; leaving the block cancels what is left and waits for it."""

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(None, None, None)

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task for ``work``, which must not raise: an error would end the whole group."""
        task = self._group.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _Part:
    """Bytes ``start`` to ``stop``: one task fills it, one reader drains it."""

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self._chunks: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._done = False
        self._error: Exception | None = None

    async def fill(self, reader: BlobReader) -> None:
        """Read the part; an error is kept for the reader of the part and does not end the task group."""
        try:
            async with aclosing(reader.read(self.start, self.stop, ranged=True)) as chunks:
                async for data in chunks:
                    self._chunks.append(data)
                    self._news.set()
        except asyncio.CancelledError:
            self._error = Unavailable("the registry client was closed")
            raise
        except Exception as error:  # noqa: BLE001  raised by drain
            self._error = error
        finally:
            self._done = True
            self._news.set()

    async def drain(self) -> AsyncGenerator[bytes, None]:
        """The bytes as they arrive, then the error if there was one."""
        while True:
            while self._chunks:
                yield self._chunks.popleft()
            if self._done:
                break
            self._news.clear()
            await self._news.wait()
        if self._error is not None:
            raise self._error


async def read_ranged(reader: BlobReader, settings: Ranged, workers: Workers) -> AsyncGenerator[bytes, None]:
    """The whole blob in order. WholeOnly once a server ignores Range; what was given out until then is good.

    Errors are those of :meth:`BlobReader.read`. Closing the generator ends every request before it returns.
    """
    size, begun = reader.blob.size, 0
    under_way: deque[tuple[_Part, asyncio.Task[None]]] = deque()
    try:
        while begun < size or under_way:
            while begun < size and len(under_way) < settings.connections:
                part = _Part(begun, min(begun + settings.chunk_bytes, size))
                name = f"blob {reader.blob.digest} from {begun}"
                under_way.append((part, workers.start(part.fill(reader), name)))
                begun = part.stop
            async with aclosing(under_way[0][0].drain()) as chunks:
                async for data in chunks:
                    yield data
            under_way.popleft()
    finally:
        tasks = [task for _, task in under_way]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
