"""What many nodes report → one status. Pure; the controller calls it whenever a report or a node changes.

A build is done when every target node that is up holds it; with flash as soon as the first one does. A node
whose attempt has failed for good does not hold the others up: once somebody holds the build, it is told in
the message and the cache serves. Nobody holding it and everybody failed is a failed build. What is Ready
stays Ready whatever nodes come, go or fail: only another build changes the phase.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from imagecached.imagecache import phases
from imagecached.imagecache.model import ImageCache
from imagecached.imagecache.status import Bytes, Phase, Status

_MOST_NAMED: Final = 3
_FAILED: Final = ("Failed", "UpdateFailed")


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What one node says of one cache. ``generation``: the build it works on, or has last worked on."""

    phase: Phase
    generation: int
    serving_generation: int = 0
    bytes: Bytes = field(default_factory=Bytes)
    reason: str = ""
    message: str = ""

    def holds(self, generation: int) -> bool:
        """Are the images of this build on the node?"""
        return generation > 0 and self.serving_generation == generation

    def failed(self, generation: int) -> bool:
        """Has the node given this build up?"""
        return self.generation == generation and self.phase in _FAILED


def aggregate(
    cache: ImageCache,
    status: Status,
    targets: Mapping[str, bool],
    reports: Mapping[str, NodeReport],
    now: float,
) -> Status:
    """The cache's status after what ``targets`` (node → is it up) report; other nodes do not count.

    The very same object comes back when nothing changed.
    """
    view = _View.of(status.generation, targets, reports)
    counted = phases.nodes(cache, status, now, ready=view.holders, total=len(targets))
    if counted.phase in ("Creating", "Updating"):
        return _build(cache, counted, view, now)
    if counted.phase == "Ready":
        return phases.remark(cache, counted, now, message=_failures(view))
    return counted


@dataclass(frozen=True, slots=True)
class _View:
    """One generation as the target nodes see it; ``up``, ``waiting`` and ``failed`` are nodes that are up."""

    holders: int
    up: int
    up_holders: int
    waiting: Sequence[str]
    failed: Sequence[tuple[str, NodeReport]]
    bytes: Bytes

    @classmethod
    def of(cls, generation: int, targets: Mapping[str, bool], reports: Mapping[str, NodeReport]) -> _View:
        holders = {node for node in targets if node in reports and reports[node].holds(generation)}
        up = [node for node, is_up in targets.items() if is_up]
        missing = [node for node in up if node not in holders]
        failed = [
            (node, reports[node]) for node in missing if node in reports and reports[node].failed(generation)
        ]
        gave_up = {node for node, _ in failed}
        waiting = [node for node in missing if node not in gave_up]
        told = [reports[node] for node in up if node in reports and reports[node].generation == generation]
        silent = len(waiting) - sum(
            node in reports and reports[node].generation == generation for node in waiting
        )
        return cls(len(holders), len(up), len(up) - len(missing), waiting, failed, _sum(told, silent))


def _sum(told: Sequence[NodeReport], silent: int) -> Bytes:
    """All nodes together; one that has said nothing yet will need as much as the one that needs most."""
    most = max((report.bytes.total for report in told), default=0)
    return Bytes(
        total=sum(report.bytes.total for report in told) + silent * most,
        done=sum(report.bytes.done for report in told),
        reused=sum(report.bytes.reused for report in told),
        fetched=sum(report.bytes.fetched for report in told),
    )


def _build(cache: ImageCache, status: Status, view: _View, now: float) -> Status:
    if view.up_holders and (cache.options.flash or not view.waiting):
        return phases.finish(cache, status, now, moved=view.bytes, message=_failures(view))
    if view.failed and not view.waiting and not view.up_holders:
        reason = Counter(report.reason for _, report in view.failed).most_common(1)[0][0]
        return phases.fail(cache, status, now, reason=reason or "NodesFailed", message=_failures(view))
    reason, message = ("NoNodes", _no_node(status)) if not view.up else ("", _waiting(view))
    return phases.advance(cache, status, now, moved=view.bytes, reason=reason, message=message)


def _no_node(status: Status) -> str:
    return (
        "none of its nodes is up" if status.nodes_total else "no node is chosen by its selector and platform"
    )


def _waiting(view: _View) -> str:
    if not view.failed:
        return ""
    return f"{_failures(view)}; waiting for {_names(view.waiting)}"


def _failures(view: _View) -> str:
    if not view.failed:
        return ""
    node, report = view.failed[0]
    more = f" (and {len(view.failed) - 1} more nodes)" if len(view.failed) > 1 else ""
    return f"{node}: {report.message or report.reason or report.phase}{more}"


def _names(nodes: Iterable[str]) -> str:
    every = sorted(nodes)
    more = f" and {len(every) - _MOST_NAMED} more" if len(every) > _MOST_NAMED else ""
    return ", ".join(every[:_MOST_NAMED]) + more
