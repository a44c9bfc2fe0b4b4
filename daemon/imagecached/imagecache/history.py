"""A status' events: the newest fifty, the same thing again counted instead of repeated."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from imagecached.imagecache.status import MAX_EVENTS, CacheEvent, EventType, Status

_MAX_MESSAGE: Final = 500


def note(status: Status, now: float, name: str, message: str, kind: EventType = "Normal") -> Status:
    """``status`` with this event as the newest; an earlier one that says the same is counted in it."""
    text = message if len(message) <= _MAX_MESSAGE else f"{message[: _MAX_MESSAGE - 1]}…"
    before = next((event for event in status.events if _same(event, name, text, kind)), None)
    others = tuple(event for event in status.events if event is not before)
    count = before.count + 1 if before else 1
    events = (*others, CacheEvent(name, text, kind, float(int(now)), count))
    return replace(status, events=events[-MAX_EVENTS:])


def _same(event: CacheEvent, name: str, message: str, kind: EventType) -> bool:
    return (event.name, event.message, event.type) == (name, message, kind)
