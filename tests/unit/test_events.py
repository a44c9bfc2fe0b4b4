"""events: a ring that readers follow and that no reader delays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from imagecached.events import Event, EventLog


async def first(events: AsyncIterator[Event], count: int) -> list[int]:
    """Numbers of the next ``count`` events."""
    return [(await anext(events)).number for _ in range(count)]


async def test_events_are_numbered_and_timed() -> None:
    """Kind, subject and facts as emitted."""
    log = EventLog(clock=lambda: 12.5)
    log.emit("pulled", "a:1", seconds=2)
    log.emit("gc")
    assert log.recent() == [Event(1, 12.5, "pulled", "a:1", {"seconds": 2}), Event(2, 12.5, "gc", "", {})]


async def test_recent_of_a_subject_and_since_a_number() -> None:
    """Both narrow the answer; a number from before a restart gives all."""
    log = EventLog()
    for subject in ("a", "b", "a"):
        log.emit("pulled", subject)
    assert [event.number for event in log.recent(subject="a")] == [1, 3]
    assert [event.number for event in log.recent(since=1)] == [2, 3]
    assert log.recent(since=3) == []
    assert [event.number for event in log.recent(since=900)] == [1, 2, 3]


async def test_the_ring_forgets_the_oldest() -> None:
    """No more than its size is kept."""
    log = EventLog(size=2)
    for _ in range(5):
        log.emit("gc")
    assert [event.number for event in log.recent()] == [4, 5]


async def test_a_subscriber_gets_the_past_and_then_the_news() -> None:
    """Waiting readers wake for every new event, each reader for itself."""
    log = EventLog()
    log.emit("gc")
    async with (
        aclosing(log.subscribe()) as one,
        aclosing(log.subscribe(since=1)) as two,
        asyncio.TaskGroup() as group,
    ):
        assert await first(one, 1) == [1]
        waiting = [group.create_task(first(one, 2)), group.create_task(first(two, 2))]
        await asyncio.sleep(0)
        log.emit("gc")
        log.emit("gc")
        assert [await task for task in waiting] == [[2, 3], [2, 3]]


async def test_a_slow_subscriber_sees_a_gap() -> None:
    """The writer goes on; what the ring forgot is missing from the numbers."""
    log = EventLog(size=2)
    log.emit("gc")
    async with aclosing(log.subscribe()) as events:
        assert await first(events, 1) == [1]
        for _ in range(5):
            log.emit("gc")
        assert await first(events, 2) == [5, 6]


async def test_a_subscriber_from_before_a_restart_gets_everything() -> None:
    """A number greater than any here is no reason to wait for it."""
    log = EventLog()
    log.emit("gc")
    async with aclosing(log.subscribe(since=500)) as events:
        assert await first(events, 1) == [1]
