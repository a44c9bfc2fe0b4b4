"""How patient the client is, and time as it sees it: one value, so that tests need not wait."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from imagecached.aio import backoff


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds, all of them.

    ``request``: one request with its answer. ``watch``: asked of the server for one watch, drawn between
    half of it and the whole. ``silence``: a watch that says nothing, not even a bookmark, is dead.
    ``resync``: a list anew although the watch is well, drawn as above. ``denied``: before asking again what
    was refused or is not served. ``settle``: changes that come together are looked at together.
    """

    request: float = 30.0
    watch: float = 600.0
    silence: float = 150.0
    resync: float = 6 * 3600.0
    first_wait: float = 0.5
    most_wait: float = 30.0
    denied: float = 60.0
    settle: float = 0.2
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    monotonic: Callable[[], float] = time.monotonic
    jitter: random.Random = field(default_factory=random.Random)

    async def within(self, seconds: float, news: Callable[[], Awaitable[None]]) -> None:
        """Wait for ``news``, at the longest so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds if seconds < float("inf") else None):
                await news()

    def drawn(self, seconds: float) -> float:
        """Between half of ``seconds`` and the whole, so that many nodes do not act as one."""
        return seconds * self.jitter.uniform(0.5, 1.0)

    def backoff(self, attempt: int, at_least: float | None = None) -> float:
        """Before trying again after failure ``attempt`` (0, 1, …), and not before the server's own wish."""
        waits = backoff(attempt, first=self.first_wait, most=self.most_wait, jitter=self.jitter)
        return max(waits, at_least or 0.0)
