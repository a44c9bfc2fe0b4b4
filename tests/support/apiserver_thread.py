"""The emulated API server for code that blocks: it runs on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tests.support.apiserver import ApiServer

T = TypeVar("T")
_SECONDS = 30.0


class Served:
    """A server that answers. :attr:`server` belongs to the other thread: touch it by :meth:`do` only."""

    def __init__(self, server: ApiServer, loop: asyncio.AbstractEventLoop) -> None:
        self.server, self._loop = server, loop

    def do(self, act: Callable[[ApiServer], T]) -> T:
        """What ``act`` gives, carried out on the server's thread."""

        async def run() -> T:
            return act(self.server)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(_SECONDS)


@contextmanager
def served(server: ApiServer) -> Iterator[Served]:
    """Serve for the length of the block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="apiserver", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(_SECONDS)
        try:
            yield Served(server, loop)
        finally:
            asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(_SECONDS)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_SECONDS)
        loop.close()
