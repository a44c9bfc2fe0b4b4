"""Time as the registry client sees it, in one value, so that tests need not wait."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Final

from imagecached.aio import backoff
from imagecached.errors import Unavailable
from imagecached.registry.config import Patience

_MOST_DIGITS: Final = 9


@dataclass(frozen=True, slots=True)
class Clock:
    """``monotonic`` and ``wall`` in seconds (wall since 1970), ``sleep`` by seconds, ``jitter`` for waits."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: random.Random = field(default_factory=random.Random)

    def retry_after(self, value: str | None) -> float | None:
        """Seconds that a ``Retry-After`` header asks for, as number or HTTP date (RFC 9110 § 10.2.3)."""
        text = (value or "").strip()
        if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS:
            return float(text)
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - self.wall())
        except (ValueError, OverflowError):
            return None

    async def wait(self, error: Unavailable, attempt: int, patience: Patience) -> None:
        """Sleep before another try after failure ``attempt`` (0, 1, …); raise ``error`` if it is too long."""
        if error.retry_after is not None and error.retry_after > patience.retry_after_most_seconds:
            raise error
        waits = backoff(
            attempt, first=patience.first_wait_seconds, most=patience.most_wait_seconds, jitter=self.jitter
        )
        await self.sleep(max(waits, error.retry_after or 0.0))
