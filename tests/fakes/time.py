"""A clock that tests advance by hand; nobody waits."""

from __future__ import annotations

import asyncio
import random

from imagecached.registry.clock import Clock


class FakeTime:
    """``slept`` lists what was waited for; sleeping moves the time. ``per_look``: seconds a look takes."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0
        self.per_look = 0.0
        self.slept: list[float] = []

    def look(self) -> float:
        """The time now."""
        self.seconds += self.per_look
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        """Let the others run, and be later."""
        self.slept.append(seconds)
        self.seconds += seconds
        await asyncio.sleep(0)

    def clock(self) -> Clock:
        """As the registry client takes it; waits are the longest possible, never shortened by chance."""
        return Clock(monotonic=self.look, wall=self.look, sleep=self.sleep, jitter=_Longest())


class _Longest(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return b
