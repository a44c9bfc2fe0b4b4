"""Kubernetes Events: told by anyone at any time, written one after the other, never more than people can
read.

Owns the Event object (core/v1) and the bounds: the same words about the same object once in ten minutes, a
short burst and then one a minute per object, and a bounded queue. Events are a courtesy: one that cannot be
written is dropped and counted, and delays nobody.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from imagecached.errors import AlreadyExists, ImagecachedError
from imagecached.imagecache import timestamp
from imagecached.kube.client import Cluster, kinds

log = logging.getLogger(__name__)

_SAME_AGAIN_SECONDS: Final = 600.0
_BURST: Final = 25.0
_PER_SECOND: Final = 1 / 60
_REMEMBERED: Final = 4096
_WAITING: Final = 1000
_MOST_MESSAGE: Final = 1000
_NAMESPACE: Final = "default"  # where events about objects without namespace live

EventType = Literal["Normal", "Warning"]


@dataclass(frozen=True, slots=True)
class About:
    """The object an event is about."""

    api_version: str
    kind: str
    name: str
    uid: str
    namespace: str = ""

    def document(self) -> dict[str, str]:
        """As ``involvedObject``."""
        found = {"apiVersion": self.api_version, "kind": self.kind, "name": self.name, "uid": self.uid}
        return {**found, "namespace": self.namespace} if self.namespace else found


@dataclass(slots=True)
class _Allowance:
    left: float
    at: float


class Recorder:
    """``component`` and ``instance`` say who tells; ``wall`` gives seconds since 1970."""

    def __init__(
        self, cluster: Cluster, component: str, instance: str, wall: Callable[[], float] = time.time
    ) -> None:
        self._cluster, self._wall = cluster, wall
        self._component, self._instance = component, instance
        self._told: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._allowed: OrderedDict[str, _Allowance] = OrderedDict()
        self._waiting: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue(_WAITING)
        self.dropped = 0

    def tell(self, about: About, reason: str, message: str, kind: EventType = "Normal") -> None:
        """Say that ``reason`` happened to ``about``, unless that was said already or too much was."""
        words = "\0".join((about.uid or about.name, reason, kind, message)).encode()
        name = f"{about.name[:200]}.{hashlib.sha256(words).hexdigest()[:16]}"
        count = self._count(name)
        if count is None:
            return
        if not self._may(about.uid or about.name) or self._waiting.full():
            self.dropped += 1
            return
        self._waiting.put_nowait(
            (name, self._event(name, about, reason, message[:_MOST_MESSAGE], kind, count))
        )

    async def run(self) -> None:
        """Write what is told, for ever."""
        while True:
            name, event = await self._waiting.get()
            try:
                await self._write(name, event)
            except ImagecachedError as error:
                self.dropped += 1
                log.info("event not written", extra={"event": name, "error": str(error)})
            finally:
                self._waiting.task_done()

    async def told(self) -> None:
        """Wait until everything told so far was written or dropped."""
        await self._waiting.join()

    async def _write(self, name: str, event: dict[str, Any]) -> None:
        namespace = event["metadata"]["namespace"]
        try:
            await self._cluster.create(kinds.EVENTS, event, namespace=namespace)
        except AlreadyExists:
            news = {"count": max(2, event["count"]), "lastTimestamp": event["lastTimestamp"]}
            await self._cluster.patch(kinds.EVENTS, name, news, namespace=namespace)

    def _count(self, name: str) -> int | None:
        """How often this was said with this time; None if it was a moment ago."""
        now = asyncio.get_running_loop().time()
        at, count = self._told.get(name, (None, 0))
        if at is not None and now - at < _SAME_AGAIN_SECONDS:
            return None
        self._told[name] = (now, count + 1)
        self._told.move_to_end(name)
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        return count + 1

    def _may(self, uid: str) -> bool:
        """Has the object anything left of its allowance?"""
        now = asyncio.get_running_loop().time()
        allowance = self._allowed.setdefault(uid, _Allowance(_BURST, now))
        self._allowed.move_to_end(uid)
        if len(self._allowed) > _REMEMBERED:
            self._allowed.popitem(last=False)
        allowance.left = min(_BURST, allowance.left + (now - allowance.at) * _PER_SECOND)
        allowance.at = now
        if allowance.left < 1:
            return False
        allowance.left -= 1
        return True

    def _event(
        self, name: str, about: About, reason: str, message: str, kind: EventType, count: int
    ) -> dict[str, Any]:
        now = timestamp(self._wall())
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": about.namespace or _NAMESPACE},
            "involvedObject": about.document(),
            "reason": reason,
            "message": message,
            "type": kind,
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": self._instance,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": count,
        }
