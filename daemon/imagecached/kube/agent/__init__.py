"""The node's agent: what the cluster wants goes to ``caches``, how far it is goes to our NodeImageCache.

``wishes`` decides what is wanted, ``secrets`` brings pull Secrets, ``report`` decides what is said and when,
``reporter`` writes. Owns no disk and builds nothing: caches knows the work, and remembers it through
restarts. Invariants: without the API server this node goes on with what it knows, and serves snapshots
whatever happens here; nothing is taken away because something could not be read, listed or resolved; when our
own Node is gone nothing changes until there is one again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, Protocol

from imagecached import __version__
from imagecached.aio import Bell
from imagecached.caches import Declared, Source, View
from imagecached.errors import ImagecachedError, InvalidInput
from imagecached.imagecache import ImageCache, Status, cache_id
from imagecached.kube.agent.report import Entry, Report, bounded, entry_of, failed_entry
from imagecached.kube.agent.reporter import Reporter
from imagecached.kube.agent.secrets import Build, Logins
from imagecached.kube.agent.wishes import Reader, Seen, Wish, keep_cache, keep_node, wishes_of
from imagecached.kube.client import Cluster, Reflector, kinds
from imagecached.kube.nodes import Node
from imagecached.registry import Access, access_of

log = logging.getLogger(__name__)

_REFUSED: Final = "AccessDenied"  # what caches says when a registry wants other logins
_HANDLER_SECONDS: Final = 5.0  # between two looks while it is awaited
_HANDLER_FAILURES: Final = 24  # first looks that may fail before the node is reported to have none


class CachesPort(Protocol):
    """What the agent needs of :class:`imagecached.caches.Caches`."""

    def declare(
        self, source: Source, declared: Mapping[str, Declared], unclear: frozenset[str] = frozenset()
    ) -> None: ...
    def list(self) -> Iterable[View]: ...
    def watch(self, name: str | None = None) -> AsyncGenerator[View | str, None]: ...


@dataclass(frozen=True, slots=True)
class Facts:
    """What the agent tells of the node besides its caches.

    ``disk``: bytes used and allowed. ``handler``: can containerd start pods from our snapshots?
    """

    platform: str
    disk: Callable[[], tuple[int, int]]
    handler: Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """``node``: the name of our Node. ``start_seconds``: the first request comes within them, drawn.

    ``facts_seconds``: time between two looks at disk and handler.
    """

    node: str
    start_seconds: float = 5.0
    facts_seconds: float = 30.0
    wall: Callable[[], float] = field(default=time.time)


class Agent:
    """One node's part of the cluster. Run :meth:`run` in a task group; it ends only by cancellation."""

    def __init__(
        self,
        cluster: Cluster,
        caches: CachesPort,
        facts: Facts,
        settings: AgentSettings,
        *,
        on_restart: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        self._cluster, self._caches, self._facts, self._settings = cluster, caches, facts, settings
        self._bell = Bell()
        self._objects = Reflector(
            cluster, kinds.IMAGE_CACHES, self._changed, keep=keep_cache, on_restart=on_restart
        )
        self._nodes = Reflector(
            cluster, kinds.NODES, self._changed, fields=f"metadata.name={settings.node}",
            keep=keep_node, on_restart=on_restart,
        )  # fmt: skip
        self._reader = Reader(_say_problem)
        self._logins = Logins(cluster, self._bell.ring)
        self._wishes: Mapping[str, Wish] = {}
        self._seen: Mapping[str, Seen] = {}
        self._views: dict[str, View] = {}
        self._declared = False
        self._handler: bool | None = None  # not examined yet
        self._handler_failures = 0
        self._reporter = Reporter(cluster, settings.node, self._node, self._look, wall=settings.wall)

    @property
    def problem(self) -> str | None:
        """Why this node may not know what the cluster wants; None: it does."""
        return self._objects.problem or self._nodes.problem or self._reporter.problem

    async def run(self) -> None:
        """Follow the cluster for ever."""
        pace = self._cluster.pace
        self._views = {view.id: view for view in self._caches.list()}
        await pace.sleep(pace.jitter.uniform(0.0, self._settings.start_seconds))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._nodes.run(), name="watch our node")
            group.create_task(self._objects.run(), name="watch imagecaches")
            group.create_task(self._logins.run(), name="pull secrets")
            group.create_task(self._follow(), name="follow caches")
            group.create_task(self._examine(), name="examine handler")
            group.create_task(self._declaring(), name="declare")
            group.create_task(self._reporter.run(), name="report")

    def _changed(self, _change: object) -> None:
        self._bell.ring()

    # What is wanted.

    async def _declaring(self) -> None:
        pace = self._cluster.pace
        while True:
            self._declare()
            self._reporter.wake()
            await self._bell.wait()
            await pace.sleep(pace.settle)  # many changes come together

    def _declare(self) -> None:
        node = self._node()
        if node is None or not self._objects.synced.is_set():
            return
        self._seen = self._reader.read(self._objects.objects)
        wishes = wishes_of(self._seen, node, self._wishes)
        self._wishes = wishes.wanted
        self._logins.want(self._needing_logins())
        declared: dict[str, Declared] = {}
        unclear = set(wishes.unclear)
        for uid, wish in self._wishes.items():
            access = self._access(uid, wish)
            if access is None:
                unclear.add(wish.origin)
            else:
                declared[wish.cache.name] = Declared(
                    wish.cache,
                    wish.digests,
                    access,
                    may_fetch=not wish.given_up,
                    generation=wish.generation,
                    origin=wish.origin,
                )
        self._caches.declare("cluster", declared, frozenset(unclear))
        self._declared = True

    def _needing_logins(self) -> dict[Build, ImageCache]:
        """Builds with pull Secrets that are not wholly here: one that serves all it should needs no login."""
        needing: dict[Build, ImageCache] = {}
        for uid, wish in self._wishes.items():
            build, view = (uid, wish.generation), self._views.get(cache_id(uid))
            status = Status() if view is None else view.status
            serves = status.serving_generation == wish.generation and not (view and view.lacking)
            if wish.cache.pull_secrets and (self._logins.access(build) is not None or not serves):
                needing[build] = wish.cache
            if status.reason == _REFUSED and not serves:
                self._logins.renew(build)
        return needing

    def _access(self, uid: str, wish: Wish) -> Access | None:
        """What the build may use; None while a Secret is not here that it needs."""
        build = uid, wish.generation
        known = self._logins.access(build)
        if known is not None or self._logins.wants(build):
            return known
        options = wish.cache.options
        return access_of((), options.plain_http, options.insecure)

    def _node(self) -> Node | None:
        """Our Node, while the cluster has one."""
        document = self._nodes.get(self._settings.node)
        if document is None:
            return None
        try:
            return Node.of(document)
        except InvalidInput:
            return None

    # What is said.

    async def _follow(self) -> None:
        """Look again whenever a cache moves."""
        async with aclosing(self._caches.watch()) as moves:
            async for moved in moves:
                if isinstance(moved, str):
                    self._views.pop(moved, None)
                else:
                    self._views[moved.id] = moved
                self._bell.ring()

    async def _examine(self) -> None:
        pace = self._cluster.pace
        while True:
            before = self._handler
            self._handler = await self._has_handler()
            if self._handler != before:
                log.info("runtime handler", extra={"ready": self._handler})
            self._reporter.wake()
            seconds = self._settings.facts_seconds
            await pace.sleep(pace.drawn(seconds if self._handler else min(seconds, _HANDLER_SECONDS)))

    async def _has_handler(self) -> bool | None:
        """A containerd that does not answer takes no handler away: with the node's label gone, a kubelet that
        starts in that moment would end the pods that run on the handler. None: nobody knows yet.
        """
        try:
            return await self._facts.handler()
        except ImagecachedError as error:
            log.debug("handler not examined", extra={"error": str(error)})
            self._handler_failures += 1
            never = self._handler is None and self._handler_failures >= _HANDLER_FAILURES
            return False if never else self._handler

    def _look(self) -> tuple[Report, int] | None:
        """Nothing before everything has been looked at once: half a report would take our nodes away."""
        if self._handler is None or not self._declared:
            return None
        used, budget = self._facts.disk()
        report = Report(
            __version__, self._facts.platform, self._handler, used, budget, bounded(self._entries().values())
        )
        return report, max((seen.nodes for seen in self._seen.values()), default=0)

    def _entries(self) -> dict[str, Entry]:
        """Every cache of the cluster that this node has something to say of, by uid."""
        names = {cache_id(uid): (uid, seen.name) for uid, seen in self._seen.items()}
        entries: dict[str, Entry] = {}
        for view in self._views.values():
            if view.source == "cluster" and view.id in names:
                uid, name = names[view.id]
                entry = entry_of(name, uid, view.status)
                if entry is not None:
                    entries[uid] = entry
        for uid, wish in self._wishes.items():
            refusal = self._logins.refusal((uid, wish.generation))
            if refusal is not None and refusal.final:
                entries[uid] = failed_entry(
                    wish.cache.name, uid, wish.generation, entries.get(uid), refusal.reason, refusal.message
                )
        return entries


def _say_problem(seen: Seen) -> None:
    log.warning("imagecache not understood", extra={"cache": seen.name, "problem": seen.problem})
