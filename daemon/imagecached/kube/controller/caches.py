"""Keeps ImageCache objects in line with what is declared and what nodes report: carries out :mod:`plan`.

Owns the statuses of all ImageCaches and their end. Level-triggered: news only name a cache, a look reads
everything. Invariants: one look at one cache at a time; each status is written over the very version it was
computed from, or not at all, so a second leader for a moment changes nothing; what is kept in memory only
saves work and waiting, and a new leader does without it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from imagecached.aio import backoff
from imagecached.errors import InvalidInput, NotFound
from imagecached.imagecache import (
    API_VERSION,
    KIND,
    ImageCache,
    Kept,
    Removal,
    SecretName,
    Status,
    phases,
    rollout_rank,
    surplus,
)
from imagecached.kube.client import Cluster, kinds
from imagecached.kube.controller.census import Census
from imagecached.kube.controller.known import Known, patch
from imagecached.kube.controller.plan import Plan, Resolution, plan, urgent
from imagecached.kube.controller.queue import Queue
from imagecached.kube.controller.resolve import Keys, Registries, drifted, read_keys, resolve
from imagecached.kube.controller.settings import Settings
from imagecached.kube.controller.tally import Tally, count, state_of
from imagecached.kube.nodes import platforms
from imagecached.kube.recorder import About, Recorder

log = logging.getLogger(__name__)

_MOST_TURNS: Final = 6  # of one look: an id, digests, a window, an end
_QUOTA: Final = ""  # no cache has this name: the key of looking at how many there are
_FIRST_RETRY: Final = 5.0
_MOST_RETRY: Final = 300.0


@dataclass(slots=True)
class _Attempt:
    """Resolving one build: what it came to last, since when, how often, and when it may be tried again."""

    uid: str
    resolution: Resolution
    since: float
    number: int = 0
    not_before: float = 0.0


class Caches:
    """``step`` is told the name of each write before it is made."""

    def __init__(
        self,
        cluster: Cluster,
        registries: Registries,
        census: Census,
        recorder: Recorder,
        settings: Settings,
        *,
        grant: Callable[[ImageCache], Any],
        wall: Callable[[], float] = time.time,
        jitter: random.Random | None = None,
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._cluster, self._registries, self._census = cluster, registries, census
        self._recorder, self._settings, self._grant = recorder, settings, grant
        self._wall, self._step = wall, step
        self._jitter = jitter or random.Random()  # noqa: S311  spreads load, guards nothing
        self._queue = Queue(self._look, apart=self._pause, jitter=self._jitter)
        self.known: dict[str, Known] = {}
        self._building: set[str] = set()
        self._attempts: dict[str, _Attempt] = {}
        self._written: dict[str, float] = {}
        self._moved: dict[str, float] = {}
        self._silent: dict[str, set[str]] = {}
        self._drift: dict[str, float] = {}

    @property
    def waiting(self) -> int:
        """Caches that wait for a look, or are looked at."""
        return len(self._queue)

    def see(self, name: str, known: Known | None) -> None:
        """The object called ``name`` is like this now, None if it is gone."""
        before = self.known.get(name)
        if known is None:
            self.known.pop(name, None)
            self._building.discard(name)
        elif before is None or known.newer_than(before):
            self._keep(known)
        self._queue.add(name)
        if before is None:
            self._queue.add(_QUOTA)

    def reported(self, node: str, names: set[str]) -> None:
        """``node`` reports these caches otherwise than before."""
        now = _loop_time()
        for name in names:
            self._moved[name] = now
            self._silent.get(name, set()).discard(node)
            if name in self.known:
                self._queue.add(name)

    def look_at_all(self) -> None:
        """Something changed that may matter to every cache, such as the nodes that there are."""
        for name in self.known:
            self._queue.add(name)

    async def run(self) -> None:
        """Work for ever. Begin when everything was listed once: a list half read says that
        things are gone.
        """
        self.look_at_all()
        await self._queue.run(self._settings.workers)

    async def _look(self, name: str) -> float | None:
        if name == _QUOTA:
            await self._keep_quota()
            return None
        again: float | None = None
        for _ in range(_MOST_TURNS):
            known = self.known.get(name)
            if known is None:
                self._forget(name)
                return None
            planned = self._plan(known)
            if planned.removal is not None:
                await self._remove(known, planned.removal)
                return None
            deferred = await self._write(known, planned.status)
            again = _sooner(planned.again, deferred)
            if planned.resolve and known.cache is not None:
                again = await self._resolve(known, known.cache)
            if again != 0.0:
                break
        return _sooner(again, await self._look_for_drift(name))

    def _forget(self, name: str) -> None:
        self._queue.forget(name)
        for book in (self._attempts, self._written, self._moved, self._silent, self._drift):
            book.pop(name, None)

    def _plan(self, known: Known) -> Plan:
        attempt = self._attempts.get(known.name)
        attempt = attempt if attempt and attempt.uid == known.uid else None
        return plan(
            known,
            partial(self._count, known),
            self._wall(),
            self._settings,
            resolution=attempt.resolution if attempt else None,
            waited=_loop_time() - attempt.since if attempt else 0.0,
        )

    def _count(self, known: Known, status: Status) -> Tally:
        assert known.cache is not None
        silent = self._silent.get(known.name, set())
        if status.phase in ("Creating", "Updating"):
            silent = self._silent[known.name] = self._who_is_silent(known, known.cache, status)
        reported = self._census.reported(known.name, known.uid, known.cache.options)
        return count(
            reported,
            uid=known.uid,
            generation=status.generation,
            window=status.rollout_window,
            silent=silent,
        )

    def _who_is_silent(self, known: Known, cache: ImageCache, status: Status) -> set[str]:
        """Nodes not to be waited for: those that had their time, since anything moved at all, and did
        nothing.
        """
        silent, now = self._silent.get(known.name, set()), _loop_time()
        if now - self._moved.setdefault(known.name, now) < self._settings.node_patience:
            return silent
        self._moved[known.name] = now
        reported = self._census.reported(known.name, known.uid, cache.options)
        rank = partial(rollout_rank, known.uid, status.generation)
        return silent | {
            node.name
            for node, report in reported
            if node.up
            and state_of(report, status.generation) == "open"
            and rank(node.name) < status.rollout_window
        }

    async def _write(self, known: Known, status: Status | None) -> float | None:
        """Make the object's status say ``status``. The seconds to wait if it is too early for that."""
        changes = {} if status is None else patch(known, status)
        if status is None or not changes:
            return None
        now = _loop_time()
        if not urgent(known.status, status):
            caches = len(self._building) if known.name in self._building else len(self.known)
            pause = self._settings.numbers_apart(len(self._census.nodes), caches)
            left = self._written.get(known.name, -pause) + pause - now
            if left > 0:
                return left
        self._step("status")
        change = {"metadata": {"resourceVersion": known.version}, "status": changes}
        self._written[known.name] = now
        try:
            written = await self._cluster.patch(kinds.IMAGE_CACHES, known.name, change, subresource="status")
        except InvalidInput as error:
            self._cannot_say(known, error)
            return None
        self._take(known.name, Known.of(written))
        self._tell(known, status)
        return None

    def _cannot_say(self, known: Known, error: InvalidInput) -> None:
        """The API server takes no status for an object whose spec breaks the schema: an event must do."""
        log.warning("status refused", extra={"cache": known.name, "error": str(error)})
        self._recorder.tell(self._about(known), "InvalidSpec", known.problem or str(error), "Warning")

    def _take(self, name: str, known: Known) -> None:
        """What our own write made of the object: the watch will say the same later."""
        before = self.known.get(name)
        if before is not None and known.newer_than(before):
            self._keep(known)

    def _keep(self, known: Known) -> None:
        self.known[known.name] = known
        if known.status.phase in ("Pending", "Creating", "Updating"):
            self._building.add(known.name)
        else:
            self._building.discard(known.name)

    def _tell(self, known: Known, status: Status) -> None:
        """Kubernetes Events for what the status' history gained."""
        before = set(known.status.events)
        for event in status.events:
            if event not in before:
                self._recorder.tell(self._about(known), event.name, event.message, event.type)

    async def _remove(self, known: Known, removal: Removal) -> None:
        """Delete the object, unless anybody changed it meanwhile: a pod may just have been given it."""
        self._step("remove")
        try:
            await self._cluster.delete(kinds.IMAGE_CACHES, known.name, uid=known.uid, version=known.version)
        except NotFound:
            return
        log.info("removed", extra={"cache": known.name, "cause": removal.cause})
        self._recorder.tell(self._about(known), removal.cause, removal.message)

    async def _keep_quota(self) -> None:
        kept = [Kept(each.cache, each.status) for each in self.known.values() if each.cache is not None]
        for removal in surplus(kept, self._settings.quota):
            known = self.known.get(removal.cache.name)
            if known is not None and not known.deleting:
                await self._remove(known, removal)

    async def _resolve(self, known: Known, cache: ImageCache) -> float:
        """Ask the registries, unless that was done a moment ago. 0 when there is an outcome to plan with."""
        now, build = _loop_time(), known.status.build
        attempt = self._attempts.get(known.name)
        if attempt is None or (attempt.uid, attempt.resolution.build) != (known.uid, build):
            attempt = self._attempts[known.name] = _Attempt(known.uid, Resolution(build), since=now)
        if now < attempt.not_before:
            return attempt.not_before - now
        keys = await self._keys(known, cache)
        await self._grant(cache)
        targets = (node for node, _ in self._census.reported(known.name, known.uid, cache.options))
        offered = platforms(targets) if cache.options.platform is None else (cache.options.platform,)
        attempt.resolution = await resolve(
            cache, build, offered, self._registries, keys, self._settings.resolve_deadline
        )
        attempt.not_before = _loop_time() + self._retry(attempt.number)
        attempt.number += 1
        return 0.0

    def _retry(self, number: int) -> float:
        wait = backoff(number, first=_FIRST_RETRY, most=_MOST_RETRY, jitter=self._jitter)
        return _FIRST_RETRY + wait

    async def _keys(self, known: Known, cache: ImageCache) -> Keys:
        keys = await read_keys(cache, self._read_secret)
        for problem in keys.problems:
            self._recorder.tell(self._about(known), "PullSecretUnusable", problem, "Warning")
        return keys

    async def _read_secret(self, secret: SecretName) -> Mapping[str, Any]:
        return await self._cluster.get(kinds.SECRETS, secret.name, namespace=secret.namespace)

    async def _look_for_drift(self, name: str) -> float | None:
        """Compare the tags that serve with the registry's, now and then; the seconds until the next time."""
        known, pause = self.known.get(name), self._settings.drift
        if not pause or known is None or known.cache is None or known.status.phase != "Ready":
            return None
        now = _loop_time()
        due = self._drift.setdefault(name, now + pause * self._jitter.uniform(0.5, 1.0))
        if now < due:
            return due - now
        self._drift[name] = now + pause * self._jitter.uniform(0.9, 1.1)
        keys = await self._keys(known, known.cache)
        seconds = self._settings.resolve_deadline
        images = await drifted(known.status.serving, self._registries, keys, seconds)
        current = self.known.get(name)
        if (
            current is not None
            and current.cache is not None
            and current.status.serving == known.status.serving
        ):
            await self._write(current, phases.drifted(current.cache, current.status, images, self._wall()))
        return self._drift[name] - now

    def _pause(self) -> float:
        return self._settings.apart(len(self._census.nodes), len(self._building))

    @staticmethod
    def _about(known: Known) -> About:
        return About(API_VERSION, KIND, known.name, known.uid)


def _sooner(*seconds: float | None) -> float | None:
    said = [each for each in seconds if each is not None]
    return min(said) if said else None


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
