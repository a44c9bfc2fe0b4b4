"""Which image is looked at when: at once when something happened to it, later and later when it fails.

Pure but for the clock it is given. Invariant: an image that is marked while it is being looked at is looked
at again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable

from imagecached.aio import backoff


class Schedule:
    """Names and the times at which each is due; times are those of ``clock``, in seconds."""

    def __init__(
        self, clock: Callable[[], float], *, first: float, most: float, jitter: random.Random | None = None
    ) -> None:
        self._clock = clock
        self._first = first
        self._most = most
        self._jitter = jitter
        self._due: dict[str, float] = {}
        self._failures: dict[str, int] = {}

    def mark(self, names: Iterable[str]) -> None:
        """Something happened to these: look at them now."""
        now = self._clock()
        self._due.update(dict.fromkeys(names, now))

    def take(self, but: Collection[str] = ()) -> list[str]:
        """The names that are due, which are then no longer; those in ``but`` wait."""
        now = self._clock()
        names = [name for name, due in self._due.items() if due <= now and name not in but]
        for name in names:
            del self._due[name]
        return names

    def failed(self, name: str) -> float:
        """Look again later, unless something happens before; in how many seconds."""
        failures = self._failures.get(name, 0)
        self._failures[name] = failures + 1
        delay = self._first + backoff(failures, first=self._first, most=self._most, jitter=self._jitter)
        self._due.setdefault(name, self._clock() + delay)
        return delay

    def forget(self, name: str) -> None:
        """It is as it should be, or it is gone: past failures do not count any more."""
        self._failures.pop(name, None)

    def wait(self, but: Collection[str] = ()) -> float | None:
        """Seconds until the next is due, of those not in ``but``; None if there is none."""
        due = min((due for name, due in self._due.items() if name not in but), default=None)
        return None if due is None else max(0.0, due - self._clock())
