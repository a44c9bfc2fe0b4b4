"""What our NodeImageCache says, and when it may be written. Pure: the scale simulation runs thousands of it.

Each write is sent to the store of the cluster and to the controllers as a whole, so there are few: what
others wait for (ready, failed, gone, the handler) at once, after a quiet second (in a large cluster, some);
how far it is with the next write, or after some time that grows with the cluster; numbers that always move a
little, only when they moved much.
In steady state there is none.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from imagecached.imagecache import Status

Entry = Mapping[str, Any]

MOST_CACHES: Final = 1000
_MOST_MESSAGE: Final = 1024
_MOST_REASON: Final = 256
_LEAST_SECONDS: Final = 1.0
_WRITES_PER_SECOND: Final = 250  # of all nodes together, when many caches are ready at a time
_SOON_SECONDS: Final = 5.0
_DISK_SECONDS: Final = 600.0
_DISK_SHARE: Final = 32
_NUMBERS: Final = ("bytesTotal", "bytesDone", "bytesReused", "bytesFetched")
_AWAITED: Final = ("Ready", "Failed", "UpdateFailed")

Urgency = Literal["none", "whenever", "soon", "now"]


@dataclass(frozen=True, slots=True)
class Report:
    """``caches`` by uid, as the object holds them: what is zero or empty is left out."""

    version: str
    platform: str
    handler: bool
    disk_bytes: int
    disk_budget_bytes: int
    caches: Mapping[str, Entry] = field(hash=False)

    def document(self, observed: str) -> dict[str, Any]:
        """The status to write."""
        return {
            "observedTime": observed,
            "daemonVersion": self.version,
            "platform": self.platform,
            "handlerReady": self.handler,
            "diskBytes": self.disk_bytes,
            "diskBudgetBytes": self.disk_budget_bytes,
            "caches": [dict(entry) for entry in self.caches.values()],
        }

    @classmethod
    def of(cls, status: Any) -> Report:
        """What an object says; whatever makes no sense counts as not said."""
        status = status if isinstance(status, Mapping) else {}
        listed = status.get("caches")
        entries = [each for each in (listed if isinstance(listed, list) else []) if isinstance(each, Mapping)]
        return cls(
            version=str(status.get("daemonVersion", "")),
            platform=str(status.get("platform", "")),
            handler=status.get("handlerReady") is True,
            disk_bytes=_number(status.get("diskBytes")),
            disk_budget_bytes=_number(status.get("diskBudgetBytes")),
            caches={str(entry["uid"]): entry for entry in entries if "uid" in entry},
        )


def entry_of(name: str, uid: str, status: Status) -> Entry | None:
    """How far a cache is here; None while there is nothing to say."""
    moved = status.bytes
    entry = {
        "name": name,
        "uid": uid,
        "generation": status.generation,
        "phase": status.phase,
        "servingGeneration": status.serving_generation,
        "bytesTotal": moved.total,
        "bytesDone": moved.done,
        "bytesReused": moved.reused,
        "bytesFetched": moved.fetched,
        "reason": status.reason[:_MOST_REASON],
        "message": status.message[:_MOST_MESSAGE],
    }
    if status.phase == "Pending" and not status.serving_generation and not status.reason:
        return None
    return {key: value for key, value in entry.items() if value}


def failed_entry(
    name: str, uid: str, generation: int, before: Entry | None, reason: str, message: str
) -> Entry:
    """A build that cannot begin here, beside what serves here nevertheless."""
    serving = (before or {}).get("servingGeneration", 0)
    entry = {
        "name": name,
        "uid": uid,
        "generation": generation,
        "phase": "UpdateFailed" if serving else "Failed",
        "servingGeneration": serving,
        "reason": reason[:_MOST_REASON],
        "message": message[:_MOST_MESSAGE],
    }
    return {key: value for key, value in entry.items() if value}


def bounded(entries: Iterable[Entry]) -> Mapping[str, Entry]:
    """By uid, in a fixed order, no more than an object takes."""
    ordered = sorted(entries, key=lambda entry: str(entry["uid"]))
    return {str(entry["uid"]): entry for entry in ordered[:MOST_CACHES]}


def urgency(written: Report, wanted: Report) -> Urgency:
    """How much somebody waits for the difference."""
    if written == wanted:
        return "none"
    if _head(written) != _head(wanted) or written.caches.keys() - wanted.caches.keys():
        return "now"
    changed = [
        (written.caches.get(uid, {}), entry)
        for uid, entry in wanted.caches.items()
        if written.caches.get(uid) != entry
    ]
    if any(_is_awaited(old, new) for old, new in changed):
        return "now"
    if changed:
        return "soon"
    moved = max(
        abs(written.disk_bytes - wanted.disk_bytes),
        abs(written.disk_budget_bytes - wanted.disk_budget_bytes),  # it moves with all that others write
    )
    return "whenever" if moved * _DISK_SHARE >= max(1, wanted.disk_budget_bytes) else "none"


def _head(report: Report) -> tuple[object, ...]:
    return report.version, report.platform, report.handler


def _is_awaited(old: Entry, new: Entry) -> bool:
    """Does somebody act on this change: a build has ended, or another one serves?"""
    if old.get("servingGeneration") != new.get("servingGeneration"):
        return True
    ended = new["phase"] in _AWAITED
    return ended and (old.get("phase"), old.get("generation")) != (new["phase"], new.get("generation"))


class Writing:
    """When the next write may be. Times are given, and only go forward."""

    def __init__(self, jitter: random.Random) -> None:
        self._jitter = jitter
        self._written: Report | None = None
        self._wrote_at = float("-inf")
        self._since: float | None = None
        self._draw = 1.0

    @property
    def written(self) -> Report | None:
        """What the object says, as far as we know."""
        return self._written

    def wrote(self, report: Report | None, now: float) -> None:
        """The object says this now; None: nobody knows what it says."""
        self._written, self._wrote_at, self._since = report, now, None
        self._draw = self._jitter.uniform(0.75, 1.25)

    def wait(self, wanted: Report, now: float, nodes: int) -> float | None:
        """Seconds until ``wanted`` may be written; None: there is nothing to say.

        ``nodes``: how many nodes the cluster's largest cache is for.
        """
        due = "now" if self._written is None else urgency(self._written, wanted)
        if due == "none":
            self._since = None
            return None
        if self._since is None:
            self._since = now
        moment = self._wrote_at + max(_LEAST_SECONDS, nodes / _WRITES_PER_SECOND)
        if due == "soon":
            pause = max(_SOON_SECONDS, nodes / 100) * self._draw
            moment = max(self._since + _SOON_SECONDS * self._draw, self._wrote_at + pause)
        elif due == "whenever":
            moment = max(self._since, self._wrote_at + _DISK_SECONDS * self._draw)
        return max(0.0, moment - now)


def _number(found: Any) -> int:
    return found if isinstance(found, int) and not isinstance(found, bool) else 0
