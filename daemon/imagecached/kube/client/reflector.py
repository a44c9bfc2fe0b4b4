"""A list kept true by a watch, for ever: what agent, controller and webhook know of the cluster.

Invariants: :attr:`Reflector.objects` is what the server had at one moment, never half of a list; during an
outage it stays as it was; ``on_change`` is told every difference between two states exactly once, in order,
on the event loop, and never between two halves of one list. Many nodes do not ask at once: waits are drawn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from imagecached.errors import AccessDenied, Corrupt, ImagecachedError, NotFound, Unavailable
from imagecached.kube.client.cluster import Cluster, Keep
from imagecached.kube.client.kinds import Key, Kind, Object, key_of
from imagecached.kube.client.watching import Event, Expired

log = logging.getLogger(__name__)

Restart = Literal["ended", "expired", "resync", "error"]
_LIVED_SECONDS: Final = 60.0  # a watch that lived so long was well: waits begin at the least again


@dataclass(frozen=True, slots=True)
class Change:
    """``new`` is None when the object is gone, ``old`` when it was not there."""

    key: Key
    old: Object | None
    new: Object | None


class Reflector:
    """The objects of one kind. Run :meth:`run` in a task group; it ends only by cancellation.

    ``keep`` cuts from each object what is not needed, before it is kept; it must leave the metadata's name,
    namespace, uid and resourceVersion. ``synced`` is set once the first list is there; ``problem`` says why
    the state may be old, None while the watch is well.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind,
        on_change: Callable[[Change], None] = lambda _change: None,
        *,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        keep: Keep | None = None,
        on_restart: Callable[[Restart], None] = lambda _reason: None,
    ) -> None:
        self._cluster, self._kind, self._pace = cluster, kind, cluster.pace
        self._selection = {"namespace": namespace, "labels": labels, "fields": fields}
        self._on_change, self._on_restart = on_change, on_restart
        self._keep: Keep = keep or (lambda document: document)
        self._objects: dict[Key, Object] = {}
        self.objects: Mapping[Key, Object] = MappingProxyType(self._objects)
        self._version = ""
        self.synced = asyncio.Event()
        self.problem: str | None = "not listed yet"

    async def run(self) -> None:
        """Keep the objects true until cancelled."""
        failures, version = 0, ""
        while True:
            started = self._pace.monotonic()
            try:
                version = version or await self._list()
                version = await self._watch(version)
                failures = 0
            except Expired:
                version = ""
                self._on_restart("expired")
                failures = 0 if self._lived(started) else failures + 1
                if failures > 1:  # a server whose history is shorter than a list takes
                    await self._pace.sleep(self._pace.backoff(failures))
            except ImagecachedError as error:
                failures = 0 if self._lived(started) else failures
                self._fail(error, first=failures == 0)
                await self._pace.sleep(self._wait(error, failures))
                failures += 1
                version = self._version if isinstance(error, Unavailable) else ""

    def get(self, name: str, namespace: str = "") -> Object | None:
        """One object as it was last seen."""
        return self._objects.get((namespace, name))

    async def _list(self) -> str:
        listed = await self._cluster.list(self._kind, keep=self._keep, **self._selection)
        self._version = ""
        try:
            found = {key_of(item): item for item in listed.items}
        except (KeyError, TypeError) as error:
            raise Corrupt(f"{self._kind.plural}: an object of the list has no name") from error
        self._replace(found)
        self._well(listed.version)
        return listed.version

    def _replace(self, found: Mapping[Key, Object]) -> None:
        """The whole state anew; told as differences once it is complete."""
        before = dict(self._objects)
        self._objects.clear()
        self._objects.update(found)
        for key, old in before.items():
            if key not in found:
                self._on_change(Change(key, old, None))
        for key, new in found.items():
            previous = before.get(key)
            if previous is None or previous["metadata"] != new["metadata"]:
                self._on_change(Change(key, previous, new))

    async def _watch(self, version: str) -> str:
        """Follow until the watch ends; the version to go on from, empty when it is time for a resync."""
        self._version = version
        end = self._pace.monotonic() + self._pace.drawn(self._pace.resync)
        while self._pace.monotonic() < end:
            started, before = self._pace.monotonic(), self._version
            async with aclosing(self._cluster.watch(self._kind, before, **self._selection)) as events:
                async for event in events:
                    self._take(event)
                    self._well(event.version)
            self._on_restart("ended")
            if not self._lived(started) and self._version == before:
                raise Unavailable(f"WATCH {self._kind.plural}: ended at once, with nothing to tell")
        self._on_restart("resync")
        return ""

    def _lived(self, started: float) -> bool:
        return self._pace.monotonic() - started > _LIVED_SECONDS

    def _take(self, event: Event) -> None:
        if event.kind == "BOOKMARK":
            return
        try:
            key = key_of(event.object)
        except KeyError as error:
            raise Corrupt(f"{self._kind.plural}: an object of the watch has no name") from error
        old = self._objects.get(key)
        if event.kind == "DELETED":
            self._objects.pop(key, None)
            if old is not None:
                self._on_change(Change(key, old, None))
            return
        new = self._objects[key] = self._keep(event.object)
        self._on_change(Change(key, old, new))

    def _well(self, version: str) -> None:
        self._version = version
        self.problem = None
        self.synced.set()

    def _fail(self, error: ImagecachedError, *, first: bool) -> None:
        self.problem = str(error)
        self._on_restart("error")
        level = logging.WARNING if first else logging.DEBUG
        log.log(level, "watch broken", extra={"kind": self._kind.plural, "error": str(error)})

    def _wait(self, error: ImagecachedError, failures: int) -> float:
        if isinstance(error, (AccessDenied, NotFound)):
            return self._pace.drawn(self._pace.denied)
        after = error.retry_after if isinstance(error, Unavailable) else None
        return self._pace.backoff(failures, after)
