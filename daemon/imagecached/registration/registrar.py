"""The service that keeps containerd's records in line with the images of the store.

Level-triggered: the images of the store are what is wanted, whatever happened; events of containerd and a
slow check only say when to look. A record that somebody removed is made again: only removing the image from
the store ends a registration. Invariants: nothing here delays or fails a pull; a failure is shown, and tried
again later and later; an image that is leaving is not registered again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from imagecached.aio import Bell, backoff
from imagecached.containerd import CRI_NAMESPACE, Containerd, Event
from imagecached.errors import Corrupt, ImagecachedError, NotFound, Unavailable, Unsupported
from imagecached.events import EventLog
from imagecached.oci.digest import Digest
from imagecached.oci.platform import Platform
from imagecached.registration.blobs import Blobs, Fetch, Registry
from imagecached.registration.index import Index
from imagecached.registration.place import OnStep, Place, nobody
from imagecached.registration.rescue import Rescue
from imagecached.registration.schedule import Schedule
from imagecached.registration.states import STATES, RegistrationState, StateName
from imagecached.registration.wanted import Mode, Wanted, names_of_all, wanted_of
from imagecached.registry import NOTHING, Access
from imagecached.store import Image, Store
from imagecached.telemetry import Metrics

log = logging.getLogger(__name__)

_AT_ONCE: Final = 4
_FIRST_RETRY_SECONDS: Final = 1.0
_LAST_RETRY_SECONDS: Final = 300.0
_RECONNECT_SECONDS: Final = 0.5
_LAST_RECONNECT_SECONDS: Final = 15.0
_LEAVING_SECONDS: Final = 60.0
_CRI_TRIES: Final = 8
_SUBSCRIBED_SECONDS: Final = 0.5  # containerd does not say when a subscription has begun


@dataclass(frozen=True, slots=True)
class RegistrationSettings:
    """Where and how images are registered. ``snapshotter``: our name there; ``check_seconds``: between two
    looks at everything. ``fetch_missing_blobs``: for containers of other snapshotters that wait for them.
    """

    namespaces: tuple[str, ...]
    snapshotter: str
    mode: Mode
    check_seconds: float = 600.0
    fetch_missing_blobs: bool = True


class Registration:
    """Keeps containerd's records in line with the images of the store; :meth:`run` is a service. Its other
    tasks belong to the ``group`` given.
    """

    def __init__(
        self,
        containerd: Containerd,
        store: Store,
        registry: Registry,
        settings: RegistrationSettings,
        group: asyncio.TaskGroup,
        *,
        metrics: Metrics,
        events: EventLog,
        clock: Callable[[], float] = time.time,
        on_step: OnStep = nobody,
    ) -> None:
        self._containerd = containerd
        self._store = store
        self._settings = settings
        self._metrics = metrics
        self._events = events
        self._clock = clock
        spaces = [containerd.namespace(name) for name in settings.namespaces]
        self._places = [Place(space, settings.snapshotter, on_step) for space in spaces]
        self._platform = Platform.host()
        self._blobs = Blobs(
            registry, self._places, group, prepare=self._prepared, room=self._room, events=events
        )
        self._schedule = Schedule(time.monotonic, first=_FIRST_RETRY_SECONDS, most=_LAST_RETRY_SECONDS)
        self._accesses: dict[str, Access] = {}
        self._states: dict[str, RegistrationState] = {}
        self._told = Bell()
        self._index = Index()
        self._rescue = Rescue(
            snapshotter=settings.snapshotter,
            index=self._index,
            places=self._places,
            blobs=self._blobs,
            wanted=self._wanted,
            prepared=self._prepared,
            accesses=self._accesses,
            events=events,
            group=group,
        )
        self._busy: set[str] = set()
        self._leaving: dict[str, float] = {}  # until when, should it never leave
        self._sweep_due = False
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    def register(self, name: str, access: Access = NOTHING) -> None:
        """Let the image of this canonical name be known to containerd soon. Never fails, never waits.

        ``access``: by which its blobs can be had, remembered until the daemon ends.
        """
        if access != NOTHING:
            self._accesses[name] = access
        self._leaving.pop(name, None)
        self._mark([name])

    async def unregister(self, *names: str) -> None:
        """Undo the registration of images that leave the store now, or have left it. Never fails: containerd
        has let go of their snapshots when this returns, or does so once it answers and is not busy.
        """
        until = time.monotonic() + _LEAVING_SECONDS
        for name in names:
            self._leaving[name] = until
            self._forget(name)
        try:
            await self._sweep()
        except ImagecachedError as error:
            log.warning("not unregistered yet", extra={"images": list(names), "reason": str(error)})
            self._sweep_due = True
            self._wake.set()

    def fetch_blobs(self, name: str) -> Fetch:
        """Begin or join bringing the blobs of an image's layers into containerd, for those who push or export
        it. Its errors: NotFound, if the image is not in the store; as of a pull; OutOfSpace.
        """
        return self._blobs.fetch(name, self._accesses.get(name, NOTHING))

    async def settled(self, *names: str) -> None:
        """Wait until each of these images was tried: it is registered, or its state says why not."""
        while any(name not in self._states and self._store.image(name) is not None for name in names):
            await self._told.wait()

    def state(self, name: str) -> RegistrationState | None:
        """How far the registration of an image is; None if there is none."""
        return self._states.get(name)

    def counts(self) -> Mapping[str, int]:
        """How many images are in which state; each state has its count."""
        counted = Counter(state.state for state in self._states.values())
        return {state: counted[state] for state in STATES}

    async def run(self) -> None:
        """For ever: hear what happens in containerd, look at what it may concern and put it right."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(), name="registration events")
            group.create_task(self._work(group), name="registration")

    async def _listen(self) -> None:
        """Every subscription begins with a look at everything: nobody knows what was missed before it."""
        loop, failures = asyncio.get_running_loop(), 0
        while True:
            begun = loop.call_later(_SUBSCRIBED_SECONDS, self._look_at_all)
            try:
                async with aclosing(self._containerd.events(self._topics())) as events:
                    async for event in events:
                        self._hear(event)
            except ImagecachedError as error:
                if not failures:
                    log.warning("containerd does not answer", extra={"reason": str(error)})
            failures = 0 if loop.time() > begun.when() else failures + 1
            begun.cancel()
            await asyncio.sleep(
                _RECONNECT_SECONDS / 10 + backoff(failures, first=0.2, most=_RECONNECT_SECONDS)
            )

    def _topics(self) -> list[str]:
        return [
            f'namespace=={name},topic~="^/{what}"'
            for name in self._settings.namespaces
            for what in ("images/", "snapshot/remove")
        ]

    def _hear(self, event: Event) -> None:
        self._mark(self._index.images(event.name))
        if self._settings.fetch_missing_blobs:
            self._rescue.hear(event)

    async def _prepared(self, name: str) -> Wanted:
        """An image, registered now. NotFound; Unavailable."""
        wanted = self._wanted(name)
        for place in self._places:
            if await place.settle(wanted) is None:
                raise NotFound(f"snapshotter {self._settings.snapshotter} does not have {wanted.chain[-1]}")
        return wanted

    def _wanted(self, name: str) -> Wanted:
        """What containerd must hold of an image. NotFound."""
        image = self._store.image(name)
        if image is None:
            raise NotFound(f"image {name} is not here: pull it")
        return wanted_of(image, self._settings.mode, self._settings.snapshotter)

    def _room(self) -> int:
        usage = self._store.usage()
        return max(0, usage.budget_bytes - usage.disk_bytes)

    def _mark(self, names: Iterable[str]) -> None:
        self._schedule.mark(names)
        self._wake.set()

    def _look_at_all(self) -> None:
        """All images of the store, and what containerd has of images that are no longer in it."""
        self._sweep_due = True
        self._mark(image.name for image in self._staying())

    def _staying(self) -> list[Image]:
        now = time.monotonic()
        self._leaving = {name: until for name, until in self._leaving.items() if until > now}
        return [image for image in self._store.images() if image.name not in self._leaving]

    async def _work(self, group: asyncio.TaskGroup) -> None:
        self._look_at_all()
        check = time.monotonic() + self._settings.check_seconds
        while True:
            self._wake.clear()
            if time.monotonic() >= check:
                check = time.monotonic() + self._settings.check_seconds
                self._look_at_all()
            if self._sweep_due:
                await self._sweep_soon()
            for name in self._schedule.take(but=self._busy):
                self._busy.add(name)
                group.create_task(self._tend(name), name=f"register {name}")
            await self._wait(check - time.monotonic())

    async def _wait(self, most: float) -> None:
        due = self._schedule.wait(but=self._busy)
        try:
            async with asyncio.timeout(max(0.0, most if due is None else min(due, most))):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _sweep_soon(self) -> None:
        self._sweep_due = False
        try:
            await self._sweep()
            for place in self._places:
                await place.end_old_leases()
        except ImagecachedError as error:
            log.debug("not swept", extra={"reason": str(error)})  # tried again with the next look at all

    async def _sweep(self) -> None:
        """Undo what belongs to no image of the store."""
        images = self._staying()
        names = names_of_all(images, self._settings.mode)
        manifests = {str(image.manifest_digest) for image in images}
        for place in self._places:
            if undone := await place.undo(names, manifests):
                log.info("unregistered", extra={"namespace": place.name, "records": undone})

    async def _tend(self, name: str) -> None:
        """Look at one image. Its errors become its state: they must not end the others."""
        try:
            async with self._slots:
                await self._settle(name)
        except ImagecachedError as error:
            self._failed(name, error)
        except Exception:  # one image that fails in whatever way must not end the daemon
            log.exception("unforeseen error", extra={"image": name})
            self._failed(name, ImagecachedError("internal error; the daemon's log has the details"))
        finally:
            self._busy.discard(name)
            self._wake.set()

    async def _settle(self, name: str) -> None:
        image, began = self._store.image(name), time.perf_counter()
        if image is None or name in self._leaving:
            self._forget(name)
            return
        if self._platform.rank(image.platform) is None:
            raise Unsupported(f"the image is for {image.platform}, which this host does not run")
        if image.damaged:
            await self._withdraw(image.manifest_digest)
            raise Corrupt("the image is damaged: pull it again")
        wanted = wanted_of(image, self._settings.mode, self._settings.snapshotter)
        self._index.put(name, {*wanted.records, *wanted.chain})
        taken = 0
        for place in self._places:
            steps = await place.settle(wanted)
            if steps is None:
                await self._withdraw(wanted.manifest_digest)
                raise NotFound(f"snapshotter {self._settings.snapshotter} does not have {wanted.chain[-1]}")
            taken += steps
        if self._store.image(name) is None or name in self._leaving:  # removed meanwhile
            await self.unregister(name)
            return
        pinned = await self._is_pinned(wanted, before=None if taken else self._states.get(name))
        self._registered(wanted, taken, pinned, time.perf_counter() - began)

    async def _withdraw(self, manifest_digest: Digest) -> None:
        for place in self._places:
            await place.withdraw(manifest_digest)

    async def _is_pinned(self, wanted: Wanted, before: RegistrationState | None) -> bool | None:
        """What CRI says, which hears of records a little later than they are made; None without CRI. It is
        not asked again where nothing has changed since it was seen pinned.
        """
        if before is not None and before.pinned:
            return True
        if CRI_NAMESPACE not in self._settings.namespaces:
            return None
        *_, last = wanted.records  # they are made, and heard of, in this order
        for attempt in range(_CRI_TRIES):
            await asyncio.sleep(backoff(attempt, first=0.02, most=1.0) if attempt else 0)
            try:
                found = await self._containerd.cri_image(last)
            except Unsupported:
                return None
            if found is not None:
                return found.pinned
        raise Unavailable("containerd has the records, but its CRI plugin does not show the image")

    def _registered(self, wanted: Wanted, taken: int, pinned: bool | None, seconds: float) -> None:  # noqa: FBT001  a fact, not a switch
        name = str(wanted.image)
        self._schedule.forget(name)
        if taken:
            self._metrics.phase_ended("register", seconds)
            self._events.emit("registered", name, steps=taken, seconds=round(seconds, 4))
            log.info("registered", extra={"image": name, "steps": taken, "seconds": round(seconds, 4)})
        self._note(name, "registered", "", pinned)

    def _failed(self, name: str, error: ImagecachedError) -> None:
        delay = self._schedule.failed(name)
        state: StateName = "pending" if error.retryable else "failed"
        if self._note(name, state, str(error), None):
            self._events.emit("registration_failed", name, reason=str(error))
            log.warning(
                "not registered",
                extra={"image": name, "reason": str(error), "retry_seconds": round(delay, 1)},
            )

    def _note(self, name: str, state: StateName, reason: str, pinned: bool | None) -> bool:  # noqa: FBT001  a fact
        """Whether that is news."""
        before = self._states.get(name)
        if before is not None and (before.state, before.reason, before.pinned) == (state, reason, pinned):
            return False
        self._states[name] = RegistrationState(state, reason, pinned, self._clock())
        self._told.ring()
        return True

    def _forget(self, name: str) -> None:
        self._index.drop(name)
        self._schedule.forget(name)
        self._states.pop(name, None)
        self._told.ring()
        self._accesses.pop(name, None)
