"""A status' conditions, in Kubernetes' standard shape, derived from the rest of it.

    Ready       may a pod use it
    Building    is a generation being built
    Current     is what serves built from what is declared now, and do its tags still name it
    AllNodes    does every target node hold it (only where there are nodes)

``last_transition_time`` moves only when a condition's status does.
"""

from __future__ import annotations

from collections.abc import Iterator

from imagecached.imagecache.status import Condition, Status


def conditions_of(status: Status, now: float) -> tuple[Condition, ...]:
    """The conditions that ``status`` should show; those it shows already say since when they hold."""
    return tuple(_since(fresh, status.condition(fresh.type), now) for fresh in _fresh(status))


def _since(fresh: Condition, shown: Condition | None, now: float) -> Condition:
    changed = shown is None or shown.status != fresh.status
    moment = float(int(now)) if changed or shown is None else shown.last_transition_time
    return Condition(fresh.type, fresh.status, fresh.reason, fresh.message, moment, fresh.observed_generation)


def _fresh(status: Status) -> Iterator[Condition]:
    yield _ready(status)
    yield _building(status)
    yield _current(status)
    if status.nodes_total:
        yield _all_nodes(status)


def _condition(status: Status, kind: str, reason: str, message: str, *, holds: bool) -> Condition:
    return Condition(
        kind, "True" if holds else "False", reason, message, observed_generation=status.observed_generation
    )


def _ready(status: Status) -> Condition:
    if status.usable:
        return _condition(
            status, "Ready", "Serving", f"generation {status.serving_generation} serves", holds=True
        )
    return _condition(status, "Ready", status.reason or status.phase, status.message, holds=False)


def _building(status: Status) -> Condition:
    building = status.phase in ("Pending", "Creating", "Updating")
    return _condition(status, "Building", status.reason or status.phase, status.message, holds=building)


def _current(status: Status) -> Condition:
    if status.drifted_images:
        names = ", ".join(status.drifted_images)
        return _condition(
            status, "Current", "TagsMoved", f"these tags name other digests now: {names}", holds=False
        )
    current = bool(status.serving) and status.serving_generation == status.generation
    return _condition(status, "Current", "UpToDate" if current else status.phase, "", holds=current)


def _all_nodes(status: Status) -> Condition:
    everywhere = status.nodes_ready >= status.nodes_total
    text = f"{status.nodes_ready} of {status.nodes_total} nodes hold generation {status.generation}"
    return _condition(
        status, "AllNodes", "Everywhere" if everywhere else "NodesMissing", text, holds=everywhere
    )
