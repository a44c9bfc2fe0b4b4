"""Writes this node's NodeImageCache, and no other object: made when it is missing, then only its status.

Owns the object. Invariants: at most one write a second, none when nothing changed; the object belongs to our
Node and goes with it; an API server that does not answer delays a report and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from imagecached.aio import Bell
from imagecached.errors import AlreadyExists, ImagecachedError, NotFound, Unavailable
from imagecached.kube.agent.report import Report, Writing
from imagecached.kube.client import Cluster, Object, kinds
from imagecached.kube.nodes import Node

log = logging.getLogger(__name__)

_KIND: Final = kinds.NODE_IMAGE_CACHES
_VERIFY_SECONDS: Final = 3600.0  # between two looks at what the object says, in case others changed it


class Reporter:
    """``node``: our Node, while the cluster has one. ``look``: what is to be said, and to how many nodes the
    cluster's largest cache goes; None while that is not known.
    """

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        node: Callable[[], Node | None],
        look: Callable[[], tuple[Report, int] | None],
        *,
        wall: Callable[[], float],
    ) -> None:
        self._cluster, self._name = cluster, name
        self._node, self._look, self._wall = node, look, wall
        self._bell = Bell()
        self._writing = Writing(cluster.pace.jitter)
        self._owner = ""  # uid of the Node that our object is known to belong to
        self._verify_at = float("inf")
        self.problem: str | None = None

    def wake(self) -> None:
        """Something may have changed."""
        self._bell.ring()

    async def run(self) -> None:
        """Keep the object true for ever."""
        pace, failures = self._cluster.pace, 0
        while True:
            try:
                seconds = await self._step()
            except ImagecachedError as error:
                self._fail(error, first=failures == 0)
                after = error.retry_after if isinstance(error, Unavailable) else None
                slow = 0.0 if isinstance(error, Unavailable) else pace.drawn(pace.denied)
                await pace.sleep(max(slow, pace.backoff(failures, after)))
                failures += 1
                continue
            failures, self.problem = 0, None
            waits = [self._verify_at - pace.monotonic(), *([] if seconds is None else [seconds])]
            await pace.within(max(0.0, min(waits)), self._bell.wait)
            await pace.sleep(pace.settle)  # many changes come together

    async def _step(self) -> float | None:
        """Write if it may be now; else the seconds until it may, None for never."""
        node, now = self._node(), self._cluster.pace.monotonic()
        found = self._look()
        if node is None or found is None:
            return None
        if self._owner != node.uid or now >= self._verify_at:
            await self._adopt(node)
            return 0.0  # look again: things may have changed meanwhile
        wanted, nodes = found
        seconds = self._writing.wait(wanted, now, nodes)
        if seconds is None or seconds > 0:
            return seconds
        await self._write(wanted)
        return 0.0

    async def _write(self, wanted: Report) -> None:
        observed = datetime.fromtimestamp(self._wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            await self._cluster.patch_status(_KIND, self._name, wanted.document(observed))
        except NotFound:
            self._owner = ""  # somebody deleted it: made anew at the next step
            self._writing.wrote(None, self._cluster.pace.monotonic())
            return
        self._writing.wrote(wanted, self._cluster.pace.monotonic())

    async def _adopt(self, node: Node) -> None:
        """See to it that the object is there and belongs to ``node``; learn what it says."""
        found = await self._found() or await self._made(node)
        if _owners(found) != {node.uid}:
            change = {"metadata": {"ownerReferences": [_reference(node)]}}
            found = await self._cluster.patch(_KIND, self._name, change)
        said = Report.of(found.get("status")) if found.get("status") else None
        self._writing.wrote(said, float("-inf"))
        pace = self._cluster.pace
        self._owner, self._verify_at = node.uid, pace.monotonic() + pace.drawn(_VERIFY_SECONDS)

    async def _found(self) -> Object | None:
        try:
            return await self._cluster.get(_KIND, self._name)
        except NotFound:
            return None

    async def _made(self, node: Node) -> Object:
        document = _KIND.named(self._name)
        document["metadata"]["ownerReferences"] = [_reference(node)]
        try:
            return await self._cluster.create(_KIND, document)
        except AlreadyExists:
            return await self._cluster.get(_KIND, self._name)

    def _fail(self, error: ImagecachedError, *, first: bool) -> None:
        self.problem = str(error)
        level = logging.WARNING if first else logging.DEBUG
        log.log(level, "report not written", extra={"error": str(error)})


def _reference(node: Node) -> Object:
    return {"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": node.uid}


def _owners(document: Mapping[str, Any]) -> set[str]:
    references = document["metadata"].get("ownerReferences")
    return {str(each.get("uid")) for each in references or () if isinstance(each, Mapping)}
