"""The emulated API server for code that blocks: it runs on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

from tests.support.apiserver import ApiServer
from tests.support.processes import NotStarted

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
    def beside(self, part: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """Something else that lives on the server's loop, for the length of the block."""
        began, stop = Future[T](), asyncio.Event()

        async def hold() -> None:
            async with part as value:
                began.set_result(value)
                await stop.wait()

        held = asyncio.run_coroutine_threadsafe(hold(), self._loop)
        held.add_done_callback(
            lambda done: None if began.done() else began.set_exception(NotStarted(str(done)))
        )
        try:
            yield began.result(_SECONDS)
        finally:
            self._loop.call_soon_threadsafe(stop.set)
            held.result(_SECONDS)


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
