"""An ImageCache object as the controller keeps it, and what a new status is as a merge patch. Pure.

Invariants: an object that makes no sense is kept with its problem, never dropped; a patch holds only what
differs, and never ``lastMatchedTime``, which admission writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from imagecached.errors import InvalidInput
from imagecached.imagecache import ImageCache, Status, parse_object, parse_status, status_document

MOST_BYTES: Final = 60 << 10
"""The whole object as JSON: far below what etcd takes, because every write of it goes to every node."""

_NOT_OURS: Final = "lastMatchedTime"


@dataclass(frozen=True, slots=True)
class Known:
    """``cache`` is None when the spec makes no sense: then ``problem`` says why.

    ``written`` is the status as it stands in the object, ``status`` what it means: an empty one if it means
    nothing. ``size``: bytes of the object without its status.
    """

    name: str
    uid: str
    version: str
    cache: ImageCache | None
    status: Status
    written: Mapping[str, Any] = field(hash=False)
    problem: str = ""
    size: int = 0
    deleting: bool = False

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Known:
        """What an API object says. InvalidInput: it has no name or no uid."""
        found = document.get("metadata")
        metadata: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
        name, uid = metadata.get("name"), metadata.get("uid")
        if not isinstance(name, str) or not isinstance(uid, str) or not name or not uid:
            raise InvalidInput("an ImageCache without metadata.name or metadata.uid")
        written = document.get("status")
        written = written if isinstance(written, Mapping) else {}
        cache, problem = _cache(document)
        rest = {key: value for key, value in document.items() if key != "status"}
        return cls(
            name=name,
            uid=uid,
            version=str(metadata.get("resourceVersion", "")),
            cache=cache,
            status=_status(written),
            written=written,
            problem=problem,
            size=len(msgspec.json.encode(rest)),
            deleting="deletionTimestamp" in metadata,
        )

    def newer_than(self, other: Known) -> bool:
        """Is this a later state of the same object? Versions that are no numbers are always
        taken as later.
        """
        if not (self.version.isdecimal() and other.version.isdecimal()):
            return True
        return self.uid != other.uid or int(self.version) >= int(other.version)


def patch(known: Known, status: Status) -> dict[str, Any]:
    """The merge patch that makes the object's status say ``status``; empty when it does."""
    wanted = status_document(fitted(status, MOST_BYTES - known.size))
    changes = {
        key: value
        for key, value in wanted.items()
        if key != _NOT_OURS and (key not in known.written or known.written[key] != value)
    }
    changes |= {key: None for key in known.written if key not in wanted and key != _NOT_OURS}
    return changes


def fitted(status: Status, room: int) -> Status:
    """``status`` in at most ``room`` bytes, if leaving out the oldest events can do it."""
    while status.events and len(msgspec.json.encode(status_document(status))) > room:
        status = replace(status, events=status.events[(len(status.events) + 1) // 2 :])
    return status


def _cache(document: Mapping[str, Any]) -> tuple[ImageCache | None, str]:
    try:
        return parse_object(document), ""
    except InvalidInput as error:
        return None, str(error)


def _status(written: Mapping[str, Any]) -> Status:
    try:
        return parse_status(written)
    except InvalidInput:
        return Status()
