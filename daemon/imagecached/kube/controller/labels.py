"""Keeps the labels of nodes in line with what they hold, and removes the reports of nodes that are gone.

Carries out :mod:`placement`. Invariants: one patch brings all labels of a node in line; patches are paced, as
each of them goes to everyone who watches nodes; a node that needs none costs no request.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from imagecached.errors import NotFound
from imagecached.kube.client import Cluster, kinds
from imagecached.kube.controller import placement
from imagecached.kube.controller.census import Census
from imagecached.kube.controller.queue import Queue
from imagecached.kube.controller.settings import Settings
from imagecached.kube.nodes import Node

log = logging.getLogger(__name__)

_APART: Final = 5.0  # labels of one node that change within this time go in one patch
_WORKERS: Final = 2


class Labels:
    """``caches`` gives the uid by name of the caches there are; ``step`` is told each write before it is
    made.
    """

    def __init__(
        self,
        cluster: Cluster,
        census: Census,
        caches: Callable[[], Mapping[str, str]],
        settings: Settings,
        *,
        jitter: random.Random | None = None,
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._cluster, self._census, self._caches, self._step = cluster, census, caches, step
        self._settings = settings
        self._queue = Queue(self._look, apart=lambda: _APART, jitter=jitter)
        self._turn = 0.0
        self._gone: dict[str, float] = {}

    def see(self, node: str) -> None:
        """The node, or what it reports, changed."""
        self._queue.add(node, delay=0.0 if node in self._census.reports else 0.5)

    def cache_came_or_went(self, name: str) -> None:
        """Whoever reports the cache must be looked at."""
        for node in self._census.holders(name):
            self._queue.add(node)

    async def run(self) -> None:
        """Work for ever. Begin when everything was listed once: a list half read says that
        things are gone.
        """
        for node in self._census.nodes.keys() | self._census.reports.keys():
            self._queue.add(node)
        await self._queue.run(_WORKERS)

    async def _look(self, name: str) -> float | None:
        node = self._census.nodes.get(name)
        if node is None:
            return await self._without_node(name)
        self._gone.pop(name, None)
        if self._changes(node):
            await self._pace()
        changes = self._changes(self._census.nodes.get(name, node))  # more may have changed meanwhile
        if changes:
            self._step("label")
            with suppress(NotFound):
                await self._cluster.patch(kinds.NODES, name, changes)
        return None

    def _changes(self, node: Node) -> dict[str, Any]:
        labels = placement.wanted(self._census.reports.get(node.name), self._caches())
        return placement.patch(node, labels)

    async def _without_node(self, name: str) -> float | None:
        """A report without its node: a node object may be made anew, so it is given some time."""
        report = self._census.reports.get(name)
        if report is None:
            self._gone.pop(name, None)
            self._queue.forget(name)
            return None
        now = asyncio.get_running_loop().time()
        left = self._gone.setdefault(name, now) + self._settings.stray - now
        if left > 0:
            return left
        self._step("stray")
        with suppress(NotFound):
            await self._cluster.delete(kinds.NODE_IMAGE_CACHES, name, uid=report.uid)
        log.info("report of a node that is gone removed", extra={"node": name})
        return None

    async def _pace(self) -> None:
        """Wait for the next turn: patches are spread over time, whoever makes them."""
        now = asyncio.get_running_loop().time()
        turn = max(self._turn, now)
        self._turn = turn + 1 / self._settings.label_patches_per_second
        await asyncio.sleep(turn - now)
