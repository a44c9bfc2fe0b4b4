"""How far the nodes are with one build: many reports as one value. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Literal

from imagecached.imagecache import Bytes, rollout_rank
from imagecached.kube.controller.reports import CacheReport
from imagecached.kube.nodes import Node

State = Literal["ready", "failed", "open"]
_ENOUGH_FAILURES = 3  # nodes that failed, and none that succeeded: the others need not try


@dataclass(frozen=True, slots=True)
class Tally:
    """``total``: nodes the cache is for that have a daemon, up or down. The rest counts nodes that are up.

    ``ready`` counts those that are down as well, as they hold it. ``ranks`` and ``open`` are of nodes that
    have neither finished nor failed and are not silent; ``fetching`` of them are let in by the window.
    """

    total: int = 0
    ready: int = 0
    failed: int = 0
    silent: int = 0
    open: int = 0
    fetching: int = 0
    ranks: tuple[int, ...] = ()
    moved: Bytes = field(default_factory=Bytes)
    failure: tuple[str, str] = ("", "")

    @property
    def outcome(self) -> Literal["done", "failed"] | None:
        """What the build has come to; None while it goes on.

        Nodes that failed, are down or silent do not keep the others from being used.
        """
        if self.open:
            hopeless = not self.ready and not self.fetching and self.failed >= _ENOUGH_FAILURES
            return "failed" if hopeless else None
        if self.ready:
            return "done"
        return "failed" if self.failed else None


def state_of(report: CacheReport | None, generation: int) -> State:
    """How far a node is with build ``generation``."""
    if report is None:
        return "open"
    if report.serving == generation:
        return "ready"
    if report.generation == generation and report.phase in ("Failed", "UpdateFailed"):
        return "failed"
    return "open"


def count(
    reported: Iterable[tuple[Node, CacheReport | None]],
    *,
    uid: str,
    generation: int,
    window: int,
    silent: Collection[str] = (),
) -> Tally:
    """The tally of build ``generation`` of the cache ``uid``; ``silent`` names nodes not to be waited for."""
    total = ready = failed = quiet = fetching = 0
    ranks: list[int] = []
    seen: list[CacheReport] = []
    failures: Counter[tuple[str, str]] = Counter()
    for node, report in reported:
        total += 1
        state = state_of(report, generation)
        current = report is not None and generation in (report.generation, report.serving)
        if report is not None and current and (node.up or state == "ready"):
            seen.append(report)
        if state == "ready":
            ready += 1
        elif not node.up:
            continue
        elif state == "failed" and report is not None:
            failed += 1
            failures[report.reason, report.message] += 1
        elif node.name in silent:
            quiet += 1
        else:
            rank = rollout_rank(uid, generation, node.name)
            ranks.append(rank)
            fetching += rank < window
    failure = failures.most_common(1)[0][0] if failures else ("", "")
    moved = _sum(seen, ready + len(ranks))
    return Tally(total, ready, failed, quiet, len(ranks), fetching, tuple(ranks), moved, failure)


def _sum(seen: list[CacheReport], nodes: int) -> Bytes:
    """Bytes over all nodes; those that have not said how much they need will need what the others do."""
    known = [report.total for report in seen if report.total]
    most = max(known, default=0)
    return Bytes(
        total=max(sum(known) + most * (nodes - len(known)), sum(known)),
        done=sum(min(report.done, report.total) for report in seen),
        reused=sum(report.reused for report in seen),
        fetched=sum(report.fetched for report in seen),
    )
