"""Which key is looked at when: each key by one worker at a time, several keys at once, failures after a wait.

Owns the order and the waits; knows nothing of what a look does. Invariants: a key named while it is looked
at is looked at again afterwards; a key named often before its turn is looked at once; two looks at one key
begin at least ``apart`` seconds after one another, so that a storm of news costs one look per interval.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

from imagecached.aio import Bell, backoff
from imagecached.errors import ImagecachedError, Unavailable

log = logging.getLogger(__name__)

_FIRST_WAIT: Final = 1.0
_MOST_WAIT: Final = 300.0
_NEVER: Final = float("inf")

Look = Callable[[str], Awaitable[float | None]]
"""Looks at a key; the seconds after which it must be looked at again, None if only news matter."""


class Queue:
    """Keys waiting for :meth:`run`'s workers. ``apart`` is asked at each naming, as clusters grow."""

    def __init__(
        self, look: Look, *, apart: Callable[[], float] = lambda: 0.0, jitter: random.Random | None = None
    ) -> None:
        self._look, self._apart = look, apart
        self._jitter = jitter or random.Random()  # noqa: S311  spreads load, guards nothing
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._busy: set[str] = set()
        self._begun: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._news = Bell()
        self._turn = asyncio.Lock()
        self._until = _NEVER  # when the worker that waits will look at the heap by itself

    def __len__(self) -> int:
        return len(self._due) + len(self._busy)

    def add(self, key: str, delay: float = 0.0) -> None:
        """Look at ``key`` in ``delay`` seconds, or earlier if that was said before."""
        now = asyncio.get_running_loop().time()
        earliest = self._begun.get(key, now - 1e9) + self._apart()
        due = max(now + delay, earliest)
        if due < self._due.get(key, _NEVER):
            self._due[key] = due
            heapq.heappush(self._heap, (due, key))
            if due < self._until:
                self._news.ring()

    def forget(self, key: str) -> None:
        """Nobody will name ``key`` again."""
        for book in (self._due, self._begun, self._failures):
            book.pop(key, None)

    async def run(self, workers: int) -> None:
        """Look for ever, at ``workers`` keys at once."""
        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(self._work(), name=f"worker {number}")

    async def _work(self) -> None:
        while True:
            key = await self._next()
            try:
                again = await self._attempt(key)
            finally:
                self._busy.discard(key)
                if key in self._due:
                    self._news.ring()
            if again is not None:
                self.add(key, again)
            await asyncio.sleep(0)  # thousands of looks that wait for nothing must not hold up the lease

    async def _next(self) -> str:
        """The key whose turn it is; one worker waits for it, the others wait for that one."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            while True:
                now = loop.time()
                waiting = self._pop(now)
                if isinstance(waiting, str):
                    return waiting
                self._until = _NEVER if waiting is None else now + waiting
                try:
                    async with asyncio.timeout(waiting):
                        await self._news.wait()
                except TimeoutError:
                    continue

    def _pop(self, now: float) -> str | float | None:
        """A key whose turn it is, else the seconds until one's is, None if there is none."""
        skipped = []
        found: str | float | None = None
        while self._heap and found is None:
            due, key = self._heap[0]
            if self._due.get(key) != due:
                heapq.heappop(self._heap)  # named again for an earlier time, or forgotten
            elif key in self._busy:
                skipped.append(heapq.heappop(self._heap))
            elif due > now:
                found = due - now
            else:
                heapq.heappop(self._heap)
                found = self._begin(key, now)
        for entry in skipped:
            heapq.heappush(self._heap, entry)
        return found

    def _begin(self, key: str, now: float) -> str:
        del self._due[key]
        self._begun[key] = now
        self._busy.add(key)
        return key

    async def _attempt(self, key: str) -> float | None:
        """One look; an error of ours is logged here, and tried again after a wait."""
        try:
            again = await self._look(key)
        except ImagecachedError as error:
            return self._failed(key, error)
        except Exception as error:
            log.exception("look failed", extra={"key": key})
            return self._failed(key, error)
        self._failures.pop(key, None)
        return again

    def _failed(self, key: str, error: Exception) -> float:
        failures = self._failures[key] = self._failures.get(key, -1) + 1
        wait = _FIRST_WAIT + backoff(failures, first=_FIRST_WAIT, most=_MOST_WAIT, jitter=self._jitter)
        asked = error.retry_after if isinstance(error, Unavailable) else None
        log.warning("will try again", extra={"key": key, "error": str(error), "seconds": round(wait, 1)})
        return max(wait, asked or 0.0)
