"""What happened lately: a ring of events for people, read by ``imagecachectl events`` and ``describe``.

Owns the ring; knows no service. Lives in memory only: a restart begins anew. Invariants: numbers grow by
one; a reader that is slower than the ring sees a gap in the numbers, and never delays the writer; everything
happens on the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

RING: Final = 1000

PULLED: Final = "pulled"
"""An image is ready. ``describe`` reads the facts: ``seconds`` {resolve, fetch, prepare, total},
``sources`` {diffID: present | fetched | shared}; for people also ``bytes_downloaded`` and ``bytes_reused``.
"""


@dataclass(frozen=True, slots=True)
class Event:
    """``kind`` is a constant word (``pulled``), ``subject`` an image name, a digest, a path or empty.

    ``time``: seconds since the epoch. ``facts``: values that JSON can hold.
    """

    number: int
    time: float
    kind: str
    subject: str
    facts: Mapping[str, Any]


class EventLog:
    """The last ``size`` events."""

    def __init__(self, size: int = RING, clock: Callable[[], float] = time.time) -> None:
        self._ring: deque[Event] = deque(maxlen=size)
        self._clock = clock
        self._last = 0
        self._news = asyncio.Event()

    def emit(self, kind: str, subject: str = "", /, **facts: Any) -> None:
        """Record that ``kind`` happened to ``subject``."""
        self._last += 1
        self._ring.append(Event(self._last, self._clock(), kind, subject, facts))
        self._news.set()
        self._news = asyncio.Event()

    def recent(self, since: int = 0, subject: str | None = None) -> list[Event]:
        """Events after number ``since``, oldest first; of one subject if given.

        A ``since`` from before a restart, greater than any number here, means all.
        """
        since = since if since <= self._last else 0
        return [event for event in self._ring if event.number > since and subject in (None, event.subject)]

    async def subscribe(self, since: int = 0) -> AsyncGenerator[Event, None]:
        """The events after number ``since``, then every new one, for ever."""
        seen = since if since <= self._last else 0
        while True:
            news = self._news
            for event in self.recent(seen) if seen < self._last else ():
                yield event
                seen = event.number
            if seen == self._last:
                await news.wait()
