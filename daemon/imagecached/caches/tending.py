"""One cache and the worker that keeps it in line: looks, decides by :mod:`plan`, acts, looks again.

There is one worker per cache and it does one thing at a time. What it remembers is written only when it has
changed, and before the worker acts on it. A build ends as soon as something else is declared. Errors become
state here; none leaves a worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from imagecached.aio import Bell, backoff, leaves
from imagecached.caches import plan
from imagecached.caches.declared import Declared
from imagecached.caches.lives import Life, durable, fingerprint
from imagecached.caches.secrets import read_access
from imagecached.caches.wanted import names_of, tag_of
from imagecached.errors import ImagecachedError, OutOfSpace
from imagecached.imagecache import Status, phases
from imagecached.registry import Access

if TYPE_CHECKING:
    from imagecached.caches.desk import Desk

log = logging.getLogger(__name__)

CONFIRM_SECONDS: Final = 60.0
"""A time to go must hold this long by a clock that cannot jump: one that was set wrong for a moment deletes
nothing."""


class Tending:
    """The worker of one cache."""

    def __init__(self, desk: Desk, life: Life) -> None:
        self._desk = desk
        self._bell = Bell()
        self._news = 0
        self._due_since: float | None = None
        self._writing = asyncio.Lock()
        self._written = life
        self.life = life
        self.again = False
        """Begin a failed build anew, or try now and not later: somebody asked for it."""
        self.yielded = False
        """Its pins have given way to others."""
        self.surplus = ""
        """Why it is one cache too many."""

    @property
    def now(self) -> float:
        """The time by the wall."""
        return self._desk.clock.wall()

    @property
    def keeps(self) -> frozenset[int]:
        """The generations whose pins must stay: serving, being built, and serving if we die now."""
        status = self.life.status
        building = status.phase in ("Pending", "Creating", "Updating")
        serving = {status.serving_generation, self._written.status.serving_generation} - {0}
        return frozenset(serving | ({status.generation} if building else set()))

    @property
    def declared(self) -> Declared | None:
        """What is declared now; what was declared before where that cannot be known."""
        found = self._desk.declarations.find(self.life.id)
        return None if found is None else found[1]

    @property
    def may_yield(self) -> bool:
        """May its pins go when the disk is needed: it was made automatically, or says so, and only serves."""
        declared = self.declared
        soft = declared is not None and (declared.cache.options.automatic or declared.cache.options.lru)
        return soft and declared is not None and not declared.managed and self.life.status.phase == "Ready"

    def settled(self, declared: Declared) -> bool:
        """Is nothing being done, or about to be done, about what is declared?"""
        if self.again or plan.wants_build(declared, self.life):
            return False
        return self.life.status.phase in ("Ready", "Failed", "UpdateFailed")

    @property
    def last_use(self) -> float:
        """When a pod was last given it, else when it was made."""
        return self.life.status.last_matched_time or self.life.status.start_time or 0.0

    def wake(self) -> None:
        """Look again."""
        self._news += 1
        self._bell.ring()

    async def matched(self) -> None:
        """A pod was given this cache."""
        declared = self.declared
        if declared is not None and self.life.status.usable:
            await self.move(phases.matched(declared.cache, self.life.status, self.now))

    async def run(self) -> None:
        """Tend the cache until it is gone."""
        while True:
            seen = self._news
            try:
                if await self._step(seen):
                    return
            except Exception as error:
                known = isinstance(error, ImagecachedError)
                facts = {"cache": self.life.name, "error": str(error)}
                log.warning("cache not tended", exc_info=None if known else error, extra=facts)
                await self._rest(plan.MOST_BACKOFF / 10, seen)

    async def move(self, status: Status) -> None:
        """This is how far it is now."""
        await self._save(replace(self.life, status=status))

    async def _step(self, seen: int) -> bool:
        """One look and one act; True when the cache is gone."""
        declared = self.declared
        if declared is None and not self._desk.declarations.withdrawn(self.life.source, self.life.origin):
            await self._rest(plan.LONGEST_WAIT, seen)
            return False
        if declared is not None and self.life.status.generation:
            await self.move(phases.looked_at(declared.cache, self.life.status, self.now))
        step = self._decide(declared)
        if not isinstance(step, plan.Remove) or step.going is None:
            self._due_since = None
        match step:
            case plan.Wait(seconds):
                await self._rest(seconds, seen)
            case plan.Remove(going):
                return await self._remove(declared, going, seen)
            case plan.Begin() if declared is not None:
                await self._begin(declared)
            case plan.Build() if declared is not None:
                await self._unless_outdated(declared, self._build)
            case plan.Mend() if declared is not None:
                await self._unless_outdated(declared, self._mend)
            case plan.Compare() if declared is not None:
                await self._unless_outdated(declared, self._compare)
        return False

    def _decide(self, declared: Declared | None) -> plan.Step:
        if declared is not None and self.yielded:
            return plan.Remove(plan.Going("DiskPressure", plan.YIELDED))
        if declared is not None and self.surplus:
            return plan.Remove(plan.Going("TooMany", self.surplus))
        if declared is not None and self.again and self.life.status.phase in ("Failed", "UpdateFailed"):
            return plan.Begin()
        if self.again:
            self.life = replace(self.life, retry_at=0.0)
        self.again = False
        return plan.next_step(
            declared, self.life, self.now,
            compare_seconds=self._desk.settings.compare_seconds, intact=self._intact(),
        )  # fmt: skip

    def _intact(self) -> bool:
        """Is everything here that should serve?"""
        status = self.life.status
        exactly = self._exactly
        records = [self._desk.store.image(name) for name in names_of(status, exactly=exactly).values()]
        return all(record is not None and not record.damaged for record in records)

    @property
    def _exactly(self) -> bool:
        declared = self.declared
        return declared is not None and declared.cache.options.platform is not None

    async def _begin(self, declared: Declared) -> None:
        before = Status() if self.life.over else self.life.status
        status = phases.begin(declared.cache, before, self.now)
        if declared.generation:
            status = replace(status, generation=declared.generation)
        self.again = False
        await self._save(
            replace(self.life, status=status, failures=0, retry_at=0.0, over="", origin=declared.origin)
        )
        self._desk.tell("imagecache_building", self.life, generation=status.generation)

    async def _unless_outdated(
        self, declared: Declared, act: Callable[[Declared], Coroutine[Any, Any, None]]
    ) -> None:
        """Do ``act``, and end it as soon as something else is declared."""
        try:
            async with asyncio.TaskGroup() as group:
                acting = group.create_task(act(declared), name=f"imagecache {self.life.name}")
                watching = group.create_task(self._until_outdated(declared), name="watch a cache")
                await asyncio.wait([acting, watching], return_when=asyncio.FIRST_COMPLETED)
                acting.cancel()
                watching.cancel()
        except ExceptionGroup as errors:
            raise next(leaves(errors)) from None

    async def _until_outdated(self, declared: Declared) -> None:
        while self.declared == declared and not (self.yielded or self.surplus):
            await self._bell.wait()

    async def _build(self, declared: Declared) -> None:
        async with self._desk.slots:
            try:
                await self._desk.builder.build(self, declared, self._access(declared))
            except Exception as error:  # noqa: BLE001  it becomes the status of this cache, and ends no other
                await self._failed(declared, error)
                return
        await self._save(replace(self.life, failures=0, looked=self._looked()))
        self._desk.built("ready")
        self._desk.tell("imagecache_ready", self.life, generation=self.life.status.serving_generation)
        await self._desk.tidy()

    async def _failed(self, declared: Declared, error: Exception) -> None:
        """Try again later, or give up."""
        known = (
            error if isinstance(error, ImagecachedError) else ImagecachedError("internal error, see the log")
        )
        if known is not error:
            log.error("unforeseen error", exc_info=error, extra={"cache": self.life.name})
        failures = self.life.failures + 1
        reason, message = plan.reason_of(known), str(known)
        if plan.is_final(known, failures):
            status = phases.fail(declared.cache, self.life.status, self.now, reason=reason, message=message)
            again = self.now + self._desk.clock.jitter.uniform(plan.FAILED_AGAIN / 2, plan.FAILED_AGAIN)
            await self._save(replace(self.life, status=status, failures=failures, retry_at=again))
            self._desk.built("failed")
            self._desk.tell("imagecache_failed", self.life, reason=reason, error=message)
            await self._desk.tidy()
            return
        wait = plan.pause(known, self._backoff(failures - 1))
        status = phases.event(self.life.status, self.now, reason, message, "Warning")
        status = replace(status, reason=reason, message=message)
        status = phases.looked_at(declared.cache, status, self.now)
        await self._save(replace(self.life, status=status, failures=failures, retry_at=self.now + wait))
        self._desk.tell("imagecache_retry", self.life, reason=reason, error=message, seconds=round(wait))

    async def _mend(self, declared: Declared) -> None:
        """Bring back what serves and has been lost, by the same digests."""
        platform = declared.cache.options.platform
        text = str(platform) if platform is not None else None
        names = names_of(self.life.status, exactly=self._exactly).values()
        async with self._desk.slots:
            try:
                access = self._access(declared)
                for name in names:
                    pull = self._desk.images.pull(name, text, access)
                    try:
                        await pull.wait()
                    finally:
                        pull.leave()
            except Exception as error:  # noqa: BLE001  tried again; the cache stays what it is
                failures = self.life.failures + 1
                wait = self._backoff(failures - 1)
                log.warning("cache not mended", extra={"cache": self.life.name, "error": str(error)})
                await self._save(replace(self.life, failures=failures, retry_at=self.now + wait))
                return
        await self._save(replace(self.life, failures=0, retry_at=0.0))
        self._desk.tell("imagecache_mended", self.life)

    async def _compare(self, declared: Declared) -> None:
        """Which tags name something else by now; a registry that does not answer changes nothing."""
        moved = list(self.life.status.drifted_images)
        for image in self.life.status.serving:
            if tag_of(image.image) is None:
                continue
            try:
                current = await self._desk.images.digest(image.image, self._access(declared))
            except ImagecachedError as error:
                log.info("tag not compared", extra={"image": image.image, "error": str(error)})
                continue
            moved = [each for each in moved if each != image.image]
            if current != image.digest:
                moved.append(image.image)
        status = phases.drifted(declared.cache, self.life.status, moved, self.now)
        await self._save(replace(self.life, status=status, looked=self._looked()))

    def _access(self, declared: Declared) -> Access:
        if declared.access is not None:
            return declared.access
        return read_access(declared.cache, self._desk.settings.secrets_dir)

    def _looked(self) -> float:
        """Now, give or take a tenth of the interval: many caches must not ask at once."""
        spread = self._desk.settings.compare_seconds / 10
        return self.now - self._desk.clock.jitter.uniform(0, spread)

    def _backoff(self, attempt: int) -> float:
        return backoff(attempt, first=5.0, most=plan.MOST_BACKOFF, jitter=self._desk.clock.jitter)

    async def _remove(self, declared: Declared | None, going: plan.Going | None, seen: int) -> bool:
        if going is not None and not (self.yielded or self.surplus) and not await self._confirmed(seen):
            return False
        going = going or plan.Going("Deleted", "nobody declares it any more")
        over = declared is not None and not await self._desk.withdraw(declared)
        if over and declared is not None:
            await self._save(replace(self.life, status=Status(), over=fingerprint(declared.cache)))
        else:
            await self._desk.forget(self.life)
        self.yielded, self.surplus = False, ""
        self._desk.removed(going, self.life)
        await self._desk.tidy()
        return not over

    async def _confirmed(self, seen: int) -> bool:
        monotonic = self._desk.clock.monotonic()
        if self._due_since is None:
            self._due_since = monotonic
        left = self._due_since + CONFIRM_SECONDS - monotonic
        if left > 0:
            await self._rest(left, seen)
        return left <= 0

    async def _save(self, life: Life) -> None:
        """Write what is worth it, then tell those who watch. On a full disk they are told all the same.

        Not only the worker saves (see :meth:`matched`), so nothing may come between the look at what was and
        the change: what is written is always the latest.
        """
        changed, self.life = life != self.life, life
        async with self._writing:
            if durable(self.life) != durable(self._written):
                await self._write(self.life)
        if changed:
            self._desk.moved()

    async def _write(self, life: Life) -> None:
        try:
            await self._desk.write(life)
            self._written = life
        except OutOfSpace as error:
            log.warning("cache not written", extra={"cache": life.name, "error": str(error)})

    async def _rest(self, seconds: float, seen: int) -> None:
        """Until somebody wakes us, at the latest after so many seconds."""

        async def news() -> None:
            while self._news == seen:
                await self._bell.wait()

        await self._desk.clock.within(seconds, news)
