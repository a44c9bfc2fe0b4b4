"""registration.schedule and registration.index: what is looked at when, and what an event is about."""

from __future__ import annotations

import random

from imagecached.registration.index import Index
from imagecached.registration.schedule import Schedule


class Clock:
    """A time that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_happened_is_looked_at_now() -> None:
    """Once, however often it happened; what is being looked at waits."""
    schedule = Schedule(Clock(), first=1, most=60)
    assert schedule.wait() is None
    schedule.mark(["a", "b"])
    schedule.mark(["a"])
    assert schedule.wait() == 0
    assert schedule.take(but={"b"}) == ["a"]
    assert schedule.wait(but={"b"}) is None
    assert schedule.take() == ["b"]
    assert schedule.take() == []


def test_failures_are_tried_later_and_later() -> None:
    """Never sooner than the first pause, never later than both; success forgets them."""
    clock = Clock()
    schedule = Schedule(clock, first=1, most=60, jitter=random.Random(1))
    delays = [schedule.failed("a") for _ in range(12) if schedule.take() is not None]
    assert all(1 <= delay <= 61 for delay in delays)
    assert max(delays[6:]) > 5
    assert schedule.take() == []
    clock.now += 61
    assert schedule.take() == ["a"]
    schedule.forget("a")
    assert schedule.failed("a") <= 2


def test_an_event_cuts_a_pause_short() -> None:
    """And a failure does not postpone what was marked meanwhile."""
    schedule = Schedule(Clock(), first=10, most=60)
    schedule.failed("a")
    schedule.mark(["a"])
    assert schedule.take() == ["a"]
    schedule.mark(["a"])
    schedule.failed("a")
    assert schedule.take() == ["a"]


def test_the_index_follows_changes() -> None:
    """A key leads to all its images; what an image no longer goes by is forgotten."""
    index = Index()
    index.put("a", ["x", "y"])
    index.put("b", ["y"])
    assert index.images("y") == {"a", "b"}
    index.put("a", ["z"])
    assert [set(index.images(key)) for key in "xyz"] == [set(), {"b"}, {"a"}]
    index.drop("b")
    index.drop("b")
    assert index.images("y") == set()
