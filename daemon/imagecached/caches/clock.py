"""Time as this use case sees it, in one value, so that tests need not wait."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


async def _within(seconds: float, news: Callable[[], Awaitable[None]]) -> None:
    """Return when there are news, at the latest after so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await news()
    except TimeoutError:
        return


@dataclass(frozen=True, slots=True)
class Clock:
    """``wall`` in seconds since 1970, which may jump; ``monotonic``, which does not.

    ``within(seconds, news)`` waits for either; ``jitter`` spreads what many would do at once.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    within: Callable[[float, Callable[[], Awaitable[None]]], Awaitable[None]] = _within
    jitter: random.Random = field(default_factory=random.Random)
