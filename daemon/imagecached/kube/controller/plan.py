"""What to do about one cache: pure. The status it should have, what else is to be done, and when to look
again.

Everything follows from the objects as they are, so a controller that dies anywhere is replaced by one that
comes to the same plan. The order of the parts: an id at once, then the digests, then the nodes, then the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from imagecached.imagecache import (
    ImageCache,
    ImageStatus,
    Removal,
    Status,
    cache_id,
    due,
    expiry,
    phases,
)
from imagecached.kube.controller.known import Known
from imagecached.kube.controller.rollout import at_once, widened
from imagecached.kube.controller.settings import Settings
from imagecached.kube.controller.tally import Tally

Count = Callable[[Status], Tally]
"""The nodes' tally of the build that a status is about."""

NO_NODES: Final = "no node that the cache is for runs imagecached"
_QUIET: Final = (
    "nodes_ready",
    "nodes_total",
    "bytes",
    "conditions",
    "last_updated_time",
    "progress",
    "message",
)


@dataclass(frozen=True, slots=True)
class Resolution:
    """What asking the registries came to: ``images``, or a failure, which is ``final`` or to be
    tried again.
    """

    build: str
    images: tuple[ImageStatus, ...] = ()
    reason: str = ""
    message: str = ""
    final: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. ``status`` None: leave it. ``removal``: delete the object. ``resolve``: ask the registries.
    ``again``: seconds until the next look, None when only news matter.
    """

    status: Status | None = None
    removal: Removal | None = None
    resolve: bool = False
    again: float | None = None


def plan(
    known: Known,
    count: Count,
    now: float,
    settings: Settings,
    *,
    resolution: Resolution | None = None,
    waited: float = 0.0,
) -> Plan:
    """The plan for one object. ``resolution``: what the last attempt to resolve this build came to;
    ``waited``: the seconds since its first attempt.
    """
    if known.deleting:
        return Plan()
    if known.cache is None:
        return _refused(known, now)
    cache, status = known.cache, known.status
    removal = due(cache, status, now)
    if removal is not None:
        return Plan(removal=removal)
    if phases.needs_build(cache, status):
        return Plan(status=phases.begin(cache, status, now), again=0.0)
    if _unresolved(status):
        if not count(status).total:
            return _held(cache, status, "NoNodes", NO_NODES, now)
        return _resolving(cache, status, resolution, waited, now, settings)
    if status.phase in ("Creating", "Updating"):
        return _building(cache, status, count, now, settings)
    return _resting(cache, status, count, now, settings)


def urgent(before: Status, after: Status) -> bool:
    """Must ``after`` be written soon, or is it only numbers that moved?"""
    return replace(before, **{name: getattr(after, name) for name in _QUIET}) != after


def _unresolved(status: Status) -> bool:
    return status.phase in ("Pending", "Updating") and any(image.digest is None for image in status.images)


def _refused(known: Known, now: float) -> Plan:
    """A spec that makes no sense builds nothing. What serves, serves on."""
    status = phases.refuse(known.status, now, cache_id=cache_id(known.uid), message=known.problem)
    return Plan() if status is known.status else Plan(status)


def _resolving(
    cache: ImageCache,
    status: Status,
    resolution: Resolution | None,
    waited: float,
    now: float,
    settings: Settings,
) -> Plan:
    if resolution is None or resolution.build != status.build:
        return Plan(resolve=True)
    if resolution.images:
        return Plan(phases.resolve(cache, status, resolution.images, now), again=0.0)
    if resolution.final or waited >= settings.resolve_patience:
        failed = phases.fail(cache, status, now, reason=resolution.reason, message=resolution.message)
        return Plan(failed, again=_until_end(cache, failed, now))
    return replace(_held(cache, status, resolution.reason, resolution.message, now), resolve=True)


def _held(cache: ImageCache, status: Status, reason: str, message: str, now: float) -> Plan:
    """Nothing can be done at the moment, and the status says why."""
    if (status.reason, status.message) == (reason, message):
        return Plan(phases.looked_at(cache, status, now), again=_until_end(cache, status, now))
    held = phases.event(status, now, reason, message, "Warning")
    held = phases.looked_at(cache, replace(held, reason=reason, message=message), now)
    return Plan(held, again=_until_end(cache, held, now))


def _building(cache: ImageCache, status: Status, count: Count, now: float, settings: Settings) -> Plan:
    tally = count(status)
    status = phases.nodes(cache, status, now, ready=tally.ready, total=tally.total)
    outcome = "done" if cache.options.flash and tally.ready else tally.outcome
    if outcome == "done":
        done = phases.finish(cache, status, now, moved=tally.moved, message=_missing(tally))
        if tally.failed:
            done = phases.event(done, now, "NodesFailed", _missing(tally), "Warning")
        return Plan(_opened(done, tally, settings), again=_until_end(cache, done, now))
    if outcome == "failed":
        reason, message = tally.failure
        text = f"{tally.failed} of {tally.total} nodes failed: {message}"[:500]
        failed = phases.fail(cache, status, now, reason=reason or "NodesFailed", message=text)
        return Plan(failed, again=_until_end(cache, failed, now))
    reason, message = _holding_up(tally)
    moved = phases.advance(cache, status, now, moved=tally.moved, reason=reason, message=message)
    again = settings.node_patience if tally.open or tally.silent else _until_end(cache, moved, now)
    return Plan(_opened(moved, tally, settings), again=again)


def _resting(cache: ImageCache, status: Status, count: Count, now: float, settings: Settings) -> Plan:
    """Ready, or failed: only the numbers of nodes follow, and the edits that need no build."""
    if status.generation == status.serving_generation:
        tally = count(status)
        status = phases.nodes(cache, status, now, ready=tally.ready, total=tally.total)
        status = _opened(replace(status, message=_missing(tally)), tally, settings)
    return Plan(phases.looked_at(cache, status, now), again=_until_end(cache, status, now))


def _opened(status: Status, tally: Tally, settings: Settings) -> Status:
    bound = at_once(tally.total, least=settings.rollout_nodes, percent=settings.rollout_percent)
    return replace(status, rollout_window=widened(status.rollout_window, tally.ranks, bound))


def _holding_up(tally: Tally) -> tuple[str, str]:
    """Why the build does not get on, if it does not."""
    if not tally.total:
        return "NoNodes", NO_NODES
    if not tally.open and not tally.ready:
        return "NodesDown", f"none of {tally.total} nodes is up and answers"
    if tally.failed:
        return "NodesFailed", f"{tally.failed} of {tally.total} nodes failed: {tally.failure[1]}"[:500]
    return "", ""


def _missing(tally: Tally) -> str:
    lacking = tally.total - tally.ready
    if not lacking:
        return ""
    why = f"{tally.failed} failed ({tally.failure[1]})" if tally.failed else "down or not done yet"
    return f"{lacking} of {tally.total} nodes do not hold it: {why}"[:500]


def _until_end(cache: ImageCache, status: Status, now: float) -> float | None:
    end = expiry(cache, status, now)
    return None if end is None else max(1.0, end - now)
