"""The use case "keep this node in line with the declared ImageCaches". The door is :class:`Caches`.

``declared`` says who wants what, ``lives`` what is remembered, ``plan`` decides, ``build`` builds,
``tending`` is the worker of one cache, ``desk`` what the workers share; ``folder`` reads a folder of
manifests, ``choosing`` gives a cache to a pod. Knows neither HTTP nor SQL nor Kubernetes. Invariants: what
serves is touched only after its successor is wholly here; nothing is deleted because a file could not be
read; one cache that fails, in whatever way, stops no other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from imagecached.caches import lives
from imagecached.caches.clock import Clock
from imagecached.caches.declared import Declared, Source, id_of
from imagecached.caches.desk import APPLIED, Collect, Desk, Registration, Settings
from imagecached.caches.folder import Folder, Reading
from imagecached.caches.lives import Life, manifest_of
from imagecached.caches.tending import Tending
from imagecached.caches.views import View
from imagecached.caches.wanted import names_of
from imagecached.errors import FailedPrecondition
from imagecached.events import EventLog
from imagecached.imagecache import (
    ImageCache,
    Kept,
    Phase,
    Problem,
    Status,
    is_cache_id,
    parse_manifests,
    surplus,
)
from imagecached.images import Images
from imagecached.oci.reference import Reference
from imagecached.store import GcReport, Store
from imagecached.telemetry import MatchResult, Metrics

if TYPE_CHECKING:
    from imagecached.caches.choosing import Choice
    from imagecached.imagecache import Decision, PodImages

__all__ = [
    "Applied",
    "Caches",
    "Clock",
    "Declared",
    "Folder",
    "Reading",
    "Registration",
    "Settings",
    "Source",
    "View",
]

log = logging.getLogger(__name__)

_RESULTS: Final[Mapping[str, MatchResult]] = {
    "explicit": "explicit",
    "full": "full",
    "partial": "partial",
    "none": "missed",
}
_OVER: Final = "expired, or failed a day ago, and is not built again until this file is edited"
Applied = Literal["created", "configured", "unchanged", "restarted"]


class Caches:
    """Every cache of this node."""

    def __init__(
        self,
        images: Images,
        store: Store,
        settings: Settings,
        *,
        events: EventLog,
        metrics: Metrics,
        collect: Collect,
        registration: Registration | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._desk = Desk(images, store, settings, events, metrics, registration, collect, clock or Clock())
        self._desk.on_gone = self._gone
        self._spawn: Callable[[str], None] | None = None
        self._views: dict[str, tuple[object, View]] = {}
        self._restore()
        store.let_yield(self._yielding)
        store.on_freed(self._on_freed)

    # What is wanted.

    def declare(
        self, source: Source, declared: Mapping[str, Declared], unclear: frozenset[str] = frozenset()
    ) -> None:
        """The complete set of ``source``, by name. ``unclear``: origins that could not be read wholly; what
        they declared before stands.
        """
        self._wake(self._desk.declarations.put(source, declared, unclear))

    async def apply(self, caches: Iterable[ImageCache]) -> dict[str, Applied]:
        """Declare these, persistently; what became of each, by name.

        FailedPrecondition, before anything is done: a file or the cluster declares one of them, or they would
        be too many.
        """
        wanted = list(caches)
        for cache in wanted:
            self._check_free(cache.id)
        self._check_quota(wanted)
        outcome: dict[str, Applied] = {}
        for cache in wanted:
            outcome[cache.name] = await self._apply(cache)
        return outcome

    async def delete(self, name: str) -> View:
        """Take back what was applied, by name or id. Running containers keep what they use. NotFound;
        FailedPrecondition: declared by a file or the cluster.
        """
        view = self.view(name)
        self._check_free(view.id)
        declared = self._desk.declarations.of("api").get(view.id)
        if declared is not None:
            await self._desk.withdraw(declared)
        self._wake(frozenset([view.id]))
        return view

    # How it is.

    def view(self, name: str) -> View:
        """One cache by name or id. NotFound."""
        shown = {view.id: view for view in self.list()}
        return shown[id_of({view.id: view.name for view in shown.values()}, name)]

    def list(self) -> tuple[View, ...]:
        """All caches, by name."""
        alive = [tending for tending in self._desk.tendings.values() if not tending.life.over]
        return tuple(sorted(map(self._view, alive), key=lambda view: (view.name, view.id)))

    def over(self) -> tuple[Problem, ...]:
        """Files that declare what has had its day."""
        return tuple(
            Problem(life.origin, "metadata.name", f"{life.name!r} {_OVER}")
            for life in (tending.life for tending in self._desk.tendings.values())
            if life.over
        )

    def status(self, name: str) -> Status:
        """How far one is, by name or id. NotFound."""
        return self.view(name).status

    async def watch(self, name: str | None = None) -> AsyncGenerator[View | str, None]:
        """Each cache as it is, then whenever it changes; an id when it has gone. For ever."""
        told: dict[str, View] = {}
        while True:
            seen = self._desk.moves
            shown = {view.id: view for view in self.list() if name in (None, view.id, view.name)}
            for cache_id in [cache_id for cache_id in told if cache_id not in shown]:
                del told[cache_id]
                yield cache_id
            for view in shown.values():
                if told.get(view.id) is not view:
                    told[view.id] = view
                    yield view
            if self._desk.moves == seen:
                await self._desk.changes.wait()

    def by_phase(self) -> Mapping[Phase, int]:
        """How many caches are in each phase."""
        counts: dict[Phase, int] = {}
        for view in self.list():
            counts[view.status.phase] = counts.get(view.status.phase, 0) + 1
        return counts

    # Who gets it.

    def decide(self, pod: PodImages) -> Decision:
        """Which cache the pod would get, and why; nothing is changed."""
        from imagecached.caches import choosing  # most nodes match nothing

        return choosing.decide(pod, self.list(), automatic=self._desk.settings.automatic)

    async def choose(self, image: str, annotations: Mapping[str, str]) -> Choice:
        """The image that a container gets for ``image``, which may be a cache's id, and a pod's annotations.

        NotFound, FailedPrecondition: it asks for a cache that it cannot have. An automatic cache is made for
        the next one where the rules say so.
        """
        from imagecached.caches import choosing

        if is_cache_id(image):
            view = self.view(image)
            name = choosing.only_image(view)
            await self._used(view.id, "explicit")
            return choosing.Choice(name)
        decision = self.decide(choosing.container(image, annotations))
        if decision.refused:
            self._desk.metrics.cache_matched("refused")
        choosing.refuse(decision)
        if decision.outcome == "off":
            return choosing.Choice(str(Reference.parse(image)), decision)
        await self._used(decision.chosen.id if decision.chosen else "", _RESULTS[decision.outcome])
        cache = choosing.made_for(decision)
        if cache is not None:
            await self.apply([cache])
        return choosing.Choice(choosing.image_of(decision, image), decision)

    async def _used(self, cache_id: str, result: MatchResult) -> None:
        """Somebody was given this cache, or none."""
        self._desk.metrics.cache_matched(result)
        tending = self._desk.tendings.get(cache_id)
        if tending is not None:
            await tending.matched()

    async def run(self) -> None:
        """Tend all caches for ever."""
        async with asyncio.TaskGroup() as group:

            def spawn(cache_id: str) -> None:
                tending = self._desk.tendings[cache_id]
                group.create_task(tending.run(), name=f"imagecache {tending.life.name}")

            self._spawn = spawn
            for cache_id in list(self._desk.tendings):
                spawn(cache_id)
            await self._desk.tidy()
            await asyncio.Event().wait()

    def _restore(self) -> None:
        """Take up what was remembered, and what was applied."""
        for cache_id, document in self._desk.store.shelf.every(lives.KIND).items():
            life = lives.decode(cache_id, document)
            if life is not None:
                self._desk.tendings[cache_id] = Tending(self._desk, life)
        applied: dict[str, Declared] = {}
        for name, document in self._desk.store.shelf.every(APPLIED).items():
            parsed = parse_manifests(document, f"applied {name}")
            applied.update({cache.name: Declared(cache) for cache in parsed.caches})
            for problem in parsed.problems:
                log.warning("applied cache not understood", extra={"problem": str(problem)})
        self._desk.declarations.put("api", applied)
        self._wake(None)

    def _wake(self, ids: frozenset[str] | None) -> None:
        """Look again at these caches, None: at all; what has none gets a worker."""
        for cache_id in self._desk.declarations.ids() - self._desk.tendings.keys():
            found = self._desk.declarations.find(cache_id)
            assert found is not None
            source, declared = found
            life = Life(cache_id, declared.cache.name, source, declared.origin)
            self._desk.tendings[cache_id] = Tending(self._desk, life)
            if self._spawn is not None:
                self._spawn(cache_id)
        for cache_id, tending in self._desk.tendings.items():
            if ids is None or cache_id in ids:
                tending.wake()
        if ids is None or ids:
            self._desk.moved()

    async def _apply(self, cache: ImageCache) -> Applied:
        before = self._desk.declarations.of("api").get(cache.id)
        manifest = manifest_of(cache)
        if before is not None and manifest_of(before.cache) == manifest:
            return self._restart(cache.id)
        await self._desk.store.shelf.put(APPLIED, cache.name, msgspec.json.encode(manifest))
        applied = {one.cache.name: one for one in self._desk.declarations.of("api").values()}
        self.declare("api", {**applied, cache.name: Declared(cache)})
        self._thin_out()
        return "created" if before is None else "configured"

    def _restart(self, cache_id: str) -> Applied:
        """What is applied once more unchanged: a build that has failed is begun anew, one that waits for its
        next try gets it now.
        """
        tending = self._desk.tendings.get(cache_id)
        if tending is None or not (tending.life.failures or tending.life.status.reason):
            return "unchanged"
        tending.again = True
        tending.wake()
        return "restarted"

    def _thin_out(self) -> None:
        """Caches beyond the quota go, those that may."""
        now = self._desk.clock.wall()
        kept = [
            Kept(replace(view.cache, created=view.created or now), view.status)
            for view in self.list()
            if view.cache is not None
        ]
        for removal in surplus(kept, self._desk.settings.quota):
            tending = self._desk.tendings[removal.cache.id]
            tending.surplus = removal.message
            tending.wake()

    def _check_quota(self, wanted: Iterable[ImageCache]) -> None:
        """Caches made by hand are never removed for others, unless they say so: too many are refused."""
        most = self._desk.settings.quota.manual
        here = {view.id: view.cache for view in self.list() if view.cache is not None}
        manual = {each.id: each for each in (*here.values(), *wanted) if not each.options.automatic}
        willing = sum(each.options.lru for each in manual.values())
        if manual.keys() - here.keys() and len(manual) - most > willing:
            raise FailedPrecondition(
                f"{len(manual)} ImageCaches are more than the {most} of caches.most_manual: delete some"
            )

    def _check_free(self, cache_id: str) -> None:
        """Only what was applied can be applied or deleted. FailedPrecondition says who else declares it."""
        found = self._desk.declarations.find(cache_id)
        if found is None or found[0] == "api":
            return
        source, declared = found
        name = declared.cache.name
        if source == "files":
            raise FailedPrecondition(
                f"ImageCache {name} is declared by {declared.origin}: edit or remove that file"
            )
        raise FailedPrecondition(f"ImageCache {name} is an object of the cluster: use kubectl")

    def _view(self, tending: Tending) -> View:
        """Made anew only if something has changed: whoever watches asks often."""
        found = self._desk.declarations.find(tending.life.id)
        known = self._views.get(tending.life.id)
        basis = (tending.life, found, tending.again)
        if known is None or known[0] != basis:
            known = self._views[tending.life.id] = (basis, self._seen(tending))
        return known[1]

    def _seen(self, tending: Tending) -> View:
        life, found = tending.life, self._desk.declarations.find(tending.life.id)
        cache = None if found is None else found[1].cache
        exactly = cache is not None and cache.options.platform is not None
        source = life.source if found is None else found[0]
        origin = life.origin if found is None else found[1].origin
        names = names_of(life.status, exactly=exactly)
        settled = found is not None and tending.settled(found[1])
        lacking = life.status.phase == "Ready" and life.failures > 0
        return View(life.id, life.name, source, origin, life.status, cache, names, settled, lacking)

    def _gone(self, cache_id: str) -> None:
        """A cache has gone. What was declared again meanwhile gets a worker of its own."""
        self._views.pop(cache_id, None)
        self._wake(frozenset())

    # Giving way.

    def _yielding(self) -> Mapping[str, float]:
        """Owners whose pins may go when the disk is needed, and their last use. Called in a thread."""
        return {
            tending.life.owner(tending.life.status.serving_generation): tending.last_use
            for tending in list(self._desk.tendings.values())
            if tending.may_yield
        }

    def _on_freed(self, report: GcReport) -> None:
        for owner in report.owners:
            found = lives.owner_of(owner)
            tending = self._desk.tendings.get(found[0]) if found is not None else None
            if tending is not None:
                tending.yielded = True
                tending.wake()
