"""What the workers of all caches share: declarations, tools, the shelf, and who is told what."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from imagecached.aio import Bell
from imagecached.caches import lives, plan
from imagecached.caches.brought import Brought
from imagecached.caches.build import Builder
from imagecached.caches.clock import Clock
from imagecached.caches.declared import Declarations, Declared
from imagecached.caches.lives import Life
from imagecached.caches.wanted import tag_of
from imagecached.events import EventLog
from imagecached.imagecache import Quota
from imagecached.images import Images
from imagecached.store import Store
from imagecached.telemetry import Metrics

if TYPE_CHECKING:
    from imagecached.caches.tending import Tending

log = logging.getLogger(__name__)

APPLIED: Final = "applied"
"""The shelf of what people applied: name → manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``at_once``: caches built at the same time. ``compare_seconds``: how often tags are compared with the
    registry, 0: never. ``automatic``: make caches for containers that found none. ``secrets_dir``: pull
    secrets by namespace and name.
    """

    at_once: int = 4
    compare_seconds: float = 3600.0
    automatic: bool = True
    quota: Quota = field(default_factory=Quota)
    secrets_dir: Path = Path("/etc/imagecached/secrets")


class Registration(Protocol):
    """What is asked of ``imagecached.registration``."""

    async def unregister(self, *names: str) -> None:
        """Images are no longer in the store: the runtime lets go of their layers."""
        ...

    async def settled(self, *names: str) -> None:
        """Wait until the runtime was told of each of these images, or it is known why it could not be."""
        ...


Collect = Callable[[], Awaitable[object]]


def _nobody(cache_id: str) -> None:
    """A cache has gone, and nobody minds."""


@dataclass(slots=True)
class Desk:
    """``collect`` frees what nothing needs any more."""

    images: Images
    store: Store
    settings: Settings
    events: EventLog
    metrics: Metrics
    registration: Registration | None
    collect: Collect
    clock: Clock
    declarations: Declarations = field(default_factory=Declarations)
    changes: Bell = field(default_factory=Bell)
    moves: int = 0
    on_gone: Callable[[str], None] = _nobody
    tendings: dict[str, Tending] = field(default_factory=dict)
    slots: asyncio.Semaphore = field(init=False)
    brought: Brought = field(init=False)
    builder: Builder = field(init=False)
    _tidying: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.slots = asyncio.Semaphore(self.settings.at_once)
        registration = self.registration
        forget, settled = (registration.unregister, registration.settled) if registration else (None, None)
        self.brought = Brought(self.store, forget)
        self.builder = Builder(self.images, self.store, self.brought, settled)

    def moved(self) -> None:
        """Something is to be seen: whoever watches looks again."""
        self.moves += 1
        self.changes.ring()

    async def write(self, life: Life) -> None:
        """Remember ``life`` across restarts. OutOfSpace."""
        await self.store.shelf.put(lives.KIND, life.id, lives.encode(life))

    async def forget(self, life: Life) -> None:
        """Remember it no more."""
        await self.store.shelf.remove(lives.KIND, life.id)
        self.tendings.pop(life.id, None)
        self.on_gone(life.id)
        self.moved()

    async def withdraw(self, declared: Declared) -> bool:
        """Take back what somebody applied; False for what a file declares, which is not ours to change."""
        applied = dict(self.declarations.of("api"))
        source = self.declarations.find(declared.cache.id)
        if source is None or source[0] != "api":
            return source is None
        await self.store.shelf.remove(APPLIED, declared.cache.name)
        applied.pop(declared.cache.id, None)
        self.declarations.put("api", {one.cache.name: one for one in applied.values()})
        return True

    async def tidy(self) -> None:
        """Let go of what no generation needs: pins, then names, then bytes."""
        async with self._tidying:
            await self._unpin()
            gone = await self.brought.sweep(self._needed())
        if gone:
            await self.collect()

    async def _unpin(self) -> None:
        for owner in sorted({pin.owner for pin in self.store.pins()}):
            found = lives.owner_of(owner)
            if found is None:
                continue
            tending = self.tendings.get(found[0])
            if tending is None or found[1] not in tending.keeps:
                await self.store.unpin(owner)

    def _needed(self) -> frozenset[str]:
        pinned = {pin.value for pin in self.store.pins() if lives.owner_of(pin.owner) is not None}
        tags = {
            tag
            for tending in self.tendings.values()
            for image in (*tending.life.status.serving, *tending.life.status.images)
            if tending.keeps and (tag := tag_of(image.image)) is not None
        }
        return frozenset(pinned | tags)

    def tell(self, kind: str, life: Life, **facts: Any) -> None:
        """An event and a line in the log."""
        self.events.emit(kind, life.name, id=life.id, **facts)
        log.info(kind, extra={"cache": life.name, "id": life.id, **facts})

    def built(self, result: Literal["ready", "failed"]) -> None:
        """A build has ended."""
        self.metrics.cache_built(result)

    def removed(self, going: plan.Going, life: Life) -> None:
        """A cache has gone."""
        self.metrics.cache_removed(going.cause)
        self.tell("imagecache_removed", life, reason=going.cause, why=going.message)
