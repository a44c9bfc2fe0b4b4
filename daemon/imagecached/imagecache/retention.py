"""When a cache goes: retention, the 24 hours after a failure, the rules of automatic caches, too many caches.

Decisions only; whoever keeps the caches carries them out. Times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from imagecached.imagecache.model import ImageCache
from imagecached.imagecache.status import Status

DAY: Final = 86_400.0
FAILED_KEPT: Final = DAY
UNUSED_KEPT: Final = 7 * DAY
"""An automatic cache that no pod was given since it was made."""
IDLE_KEPT: Final = 30 * DAY
"""An automatic cache since a pod was last given it."""

Cause: TypeAlias = Literal["Expired", "Failed", "Unused", "Idle", "TooMany"]


@dataclass(frozen=True, slots=True)
class Kept:
    """A cache and how far it is."""

    cache: ImageCache
    status: Status


@dataclass(frozen=True, slots=True)
class Quota:
    """How many caches there may be; automatic ones are counted apart."""

    manual: int = 500
    automatic: int = 25


@dataclass(frozen=True, slots=True)
class Removal:
    """Which cache goes, and why in one sentence."""

    cache: ImageCache
    cause: Cause
    message: str


def expiry(cache: ImageCache, status: Status, now: float = 0.0) -> float | None:
    """When this cache goes if nothing happens to it; None is never.

    ``now`` stands in where the status does not say when it failed.
    """
    moments = [moment for moment, _, _ in _ends(cache, status, now)]
    return min(moments) if moments else None


def due(cache: ImageCache, status: Status, now: float) -> Removal | None:
    """The cache's removal if its time has come."""
    ends = sorted(_ends(cache, status, now))
    if not ends or ends[0][0] > now:
        return None
    return Removal(cache, ends[0][1], ends[0][2])


def surplus(kept: Iterable[Kept], quota: Quota, *, coming: int = 0) -> list[Removal]:
    """What must go so that ``coming`` more automatic caches fit: the longest unused ones first.

    Of manual caches only those go that asked for it (``options.lru``).
    """
    every = list(kept)
    automatic = [one for one in every if one.cache.options.automatic]
    manual = [one for one in every if not one.cache.options.automatic]
    removals = _oldest(automatic, len(automatic) + coming - quota.automatic, "automatic", quota.automatic)
    willing = [one for one in manual if one.cache.options.lru]
    return removals + _oldest(willing, len(manual) - quota.manual, "manual", quota.manual)


def last_use(kept: Kept) -> float:
    """When a pod was last given the cache, or else when it was made."""
    return kept.status.last_matched_time or _made(kept.cache, kept.status)


def _ends(cache: ImageCache, status: Status, now: float) -> list[tuple[float, Cause, str]]:
    made = _made(cache, status)
    ends: list[tuple[float, Cause, str]] = []
    if cache.retention_days is not None:
        ends.append((made + cache.retention_days * DAY, "Expired", f"kept for {cache.retention_days} days"))
    if status.phase == "Failed":
        ends.append((_failed(status, now) + FAILED_KEPT, "Failed", "kept for 24 hours after it failed"))
    if cache.options.automatic and status.last_matched_time is None:
        ends.append((made + UNUSED_KEPT, "Unused", "made automatically, and no pod was given it for 7 days"))
    elif cache.options.automatic and status.last_matched_time is not None:
        end = status.last_matched_time + IDLE_KEPT
        ends.append((end, "Idle", "made automatically, and no pod was given it for 30 days"))
    return ends


def _made(cache: ImageCache, status: Status) -> float:
    return cache.created or status.start_time or 0.0


def _failed(status: Status, now: float) -> float:
    """Since when it is not building any more."""
    building = status.condition("Building")
    known = building is not None and building.status == "False"
    return building.last_transition_time if known and building is not None else now


def _oldest(kept: Sequence[Kept], count: int, kind: str, quota: int) -> list[Removal]:
    if count <= 0:
        return []
    by_use = sorted(kept, key=lambda one: (last_use(one), one.cache.name))
    text = f"the longest unused of more than {quota} {kind} caches"
    return [Removal(one.cache, "TooMany", text) for one in by_use[:count]]
