"""The lines of a watch as events. Pure but for the bytes that it waits for; lines are bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, get_args

import msgspec

from imagecached.errors import Corrupt
from imagecached.kube.client import answers
from imagecached.kube.client.answers import Gone, Status
from imagecached.kube.client.kinds import Object

MOST_LINE_BYTES: Final = 8 << 20  # an object is at most 1.5 MiB in etcd
EventKind = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]


class Expired(Exception):
    """The version to watch from is older than the server's history: list again."""


@dataclass(frozen=True, slots=True)
class Event:
    """What happened. A BOOKMARK's object holds a resourceVersion and nothing else."""

    kind: EventKind
    object: Object

    @property
    def version(self) -> str:
        """The resourceVersion that has been seen with this event."""
        return str(self.object["metadata"]["resourceVersion"])


async def lines_of(what: str, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Whole lines. Corrupt: a line longer than any object; a half line at the end is dropped."""
    rest = bytearray()
    async for piece in pieces:
        rest += piece
        if b"\n" in piece:
            *whole, last = rest.split(b"\n")
            rest = bytearray(last)
            for line in whole:
                if line.strip():
                    yield bytes(line)
        if len(rest) > MOST_LINE_BYTES:
            raise Corrupt(f"{what}: a line is longer than {MOST_LINE_BYTES} bytes")


async def events_of(what: str, lines: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    """The events. Expired and our errors for what an ERROR event says; Corrupt for what is no event."""
    async for line in lines:
        yield event_of(what, line)


def event_of(what: str, line: bytes) -> Event:
    """One event."""
    decoded = answers.document(what, line)
    kind, found = decoded.get("type"), decoded.get("object")
    if kind == "ERROR":
        raise _error(what, found)
    if kind not in get_args(EventKind) or not _is_object(found):
        raise Corrupt(f"{what}: a line is no event")
    return Event(cast("EventKind", kind), cast("Object", found))


def _is_object(found: Any) -> bool:
    metadata = found.get("metadata") if isinstance(found, dict) else None
    return isinstance(metadata, dict) and bool(metadata.get("resourceVersion"))


def _error(what: str, found: Any) -> Exception:
    try:
        status = msgspec.convert(found, Status)
    except msgspec.ValidationError:
        status = Status()
    error = answers.refusal_of(what, status.code or 500, status)
    return Expired(str(error)) if isinstance(error, Gone) else error
