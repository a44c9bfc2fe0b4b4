"""A clock for the caches that tests move: nobody waits, and wall and monotonic time can go apart."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from imagecached.caches import Clock


class FakeCalendar:
    """``advance`` moves both times, ``jump`` the wall's alone. Waits end when the monotonic time has come."""

    def __init__(self) -> None:
        self.wall = 1_800_000_000.0
        self.monotonic = 1000.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def clock(self) -> Clock:
        """As the use case takes it; jitter is none."""
        return Clock(lambda: self.wall, lambda: self.monotonic, self._within, _Least())

    def jump(self, seconds: float) -> None:
        """Somebody sets the clock."""
        self.wall += seconds

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self.wall += seconds
        self.monotonic += seconds
        for end, event in self._sleepers:
            if end <= self.monotonic:
                event.set()

    @property
    def sleepers(self) -> int:
        """How many wait, and not only until it is their turn."""
        return sum(not event.is_set() for _, event in self._sleepers)

    @property
    def next(self) -> float:
        """Seconds until the first wait ends."""
        return min((end for end, _ in self._sleepers), default=self.monotonic) - self.monotonic

    async def _within(self, seconds: float, news: Callable[[], Awaitable[None]]) -> None:
        sleeper = (self.monotonic + seconds, asyncio.Event())
        self._sleepers.append(sleeper)
        try:
            await _first(sleeper[1].wait, news)
        finally:
            self._sleepers.remove(sleeper)


async def _first(*waits: Callable[[], Awaitable[object]]) -> None:
    async def one(wait: Callable[[], Awaitable[object]]) -> None:
        await wait()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(wait)) for wait in waits]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()


class _Least(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return b if a == 0 else a
