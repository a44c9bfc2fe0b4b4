"""What the leader does while it leads: follows the cluster's objects and keeps the parts that act in step.

Owns the three lists that everything follows from, and who is told what. Invariants: nothing acts before each
list was read whole once, as half a list says that things are gone; all state dies with the leadership.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from imagecached.errors import InvalidInput
from imagecached.imagecache import ImageCache
from imagecached.kube.client import Change, Cluster, Object, Reflector, kinds
from imagecached.kube.controller.caches import Caches
from imagecached.kube.controller.census import Census
from imagecached.kube.controller.known import Known
from imagecached.kube.controller.labels import Labels
from imagecached.kube.controller.reports import NodeReport, Reader
from imagecached.kube.controller.resolve import Registries
from imagecached.kube.controller.secrets import Secrets
from imagecached.kube.controller.settings import Settings
from imagecached.kube.nodes import Node
from imagecached.kube.recorder import Recorder

log = logging.getLogger(__name__)

_VALUE: Final = "value"  # where a kept object holds what it means
_METADATA: Final = ("name", "namespace", "uid", "resourceVersion")


class Leader:
    """One term of leading. ``step`` is told the name of each write before it is made."""

    def __init__(
        self,
        cluster: Cluster,
        registries: Registries,
        recorder: Recorder,
        settings: Settings,
        *,
        wall: Callable[[], float] = time.time,
        jitter: random.Random | None = None,
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.census = Census()
        self._secrets = Secrets(cluster, self._declared, settings, jitter=jitter, step=step)
        self.caches = Caches(
            cluster, registries, self.census, recorder, settings,
            grant=self._secrets.grant, wall=wall, jitter=jitter, step=step,
        )  # fmt: skip
        self._labels = Labels(cluster, self.census, self._uids, settings, jitter=jitter, step=step)
        self._reflectors = (
            Reflector(cluster, kinds.IMAGE_CACHES, self._cache_changed, keep=kept(Known.of)),
            Reflector(cluster, kinds.NODES, self._node_changed, keep=kept(Node.of)),
            Reflector(cluster, kinds.NODE_IMAGE_CACHES, self._report_changed, keep=kept(Reader().read)),
        )
        self._settings = settings

    @property
    def problem(self) -> str | None:
        """Why what we know may be old; None when all is well."""
        return next((each.problem for each in self._reflectors if each.problem), None)

    async def run(self) -> None:
        """Lead until cancelled."""
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors:
                group.create_task(reflector.run(), name="reflector")
            for reflector in self._reflectors:
                await reflector.synced.wait()
            log.info("synced", extra={"caches": len(self.caches.known), "nodes": len(self.census.nodes)})
            group.create_task(self._secrets.run(), name="secrets")
            group.create_task(self.caches.run(), name="caches")
            group.create_task(self._labels.run(), name="labels")

    def _cache_changed(self, change: Change) -> None:
        name, old, new = _parted(change, Known)
        before = self.caches.known.get(name, old)
        self.caches.see(name, new)
        self._secrets.see(before.cache if before else None, new.cache if new else None)
        if (before.uid if before else None) != (new.uid if new else None):
            self._labels.cache_came_or_went(name)

    def _node_changed(self, change: Change) -> None:
        name, _, new = _parted(change, Node)
        if self.census.see_node(name, new):
            self.caches.look_at_all()
        self._labels.see(name)

    def _report_changed(self, change: Change) -> None:
        name, old, new = _parted(change, NodeReport)
        names = self.census.see_report(name, new)
        self.caches.reported(name, names)
        if old is None or new is None:
            self.caches.look_at_all()  # one node more or less to wait for
        if old is None or new is None or old.handler != new.handler or _holds_other(old, new, names):
            self._labels.see(name)

    def _declared(self) -> list[ImageCache]:
        return [known.cache for known in self.caches.known.values() if known.cache is not None]

    def _uids(self) -> Mapping[str, str]:
        return {name: known.uid for name, known in self.caches.known.items()}


def kept(read: Callable[[Object], Any]) -> Callable[[Object], Object]:
    """What a reflector keeps of an object: who it is, and what ``read`` makes of it."""

    def keep(document: Object) -> Object:
        metadata = document["metadata"]
        found: Object = {"metadata": {name: metadata[name] for name in _METADATA if name in metadata}}
        try:
            found[_VALUE] = read(document)
        except InvalidInput as error:
            log.warning("object makes no sense", extra={"object": metadata["name"], "error": str(error)})
        return found

    return keep


def _parted(change: Change, kind: type[Any]) -> tuple[str, Any, Any]:
    """The object's name, what it meant and what it means."""
    old, new = ((each or {}).get(_VALUE) for each in (change.old, change.new))
    assert all(each is None or isinstance(each, kind) for each in (old, new))
    return change.key[1], old, new


def _holds_other(old: NodeReport, new: NodeReport, names: set[str]) -> bool:
    """Does the node hold other caches than before, among those that are reported otherwise?"""
    return any(_held(old, name) != _held(new, name) for name in names)


def _held(report: NodeReport, name: str) -> str:
    cache = report.caches.get(name)
    return cache.uid if cache is not None and cache.serving else ""
