"""Images that the runtime is about to unpack and the store does not hold: fetch them, layer by layer in time.

containerd asks to prepare one layer after the other, and fetches all that is left once one of them is not
there. So each is waited for while our own pull of the whole image gets on; whatever keeps that from
succeeding only means that the runtime goes on by itself. Knows no registry: a :class:`Source` pulls.
Invariants: one ride per image, whoever asks; a pull that nobody has waited for during a while is left; what
went wrong is remembered for a while, so that nobody waits for the same again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from imagecached.errors import ImagecachedError, InvalidInput, Unavailable
from imagecached.events import EventLog
from imagecached.oci.digest import Digest
from imagecached.oci.reference import Reference
from imagecached.store import Hold, Store
from imagecached.telemetry import Metrics

log = logging.getLogger(__name__)

IMAGE_REF: Final = "containerd.io/snapshot/cri.image-ref"
MANIFEST_DIGEST: Final = "containerd.io/snapshot/cri.manifest-digest"

_LINGER_SECONDS: Final = 10.0  # between two layers nobody waits; a call that was dropped comes again
_FORGET_SECONDS: Final = 60.0
_LOOKS: Final = 4  # at the pace, during the time without progress that is allowed
_MOST_REMEMBERED: Final = 1000


class Fetch(Protocol):
    """One caller's part in pulling an image: ``imagecached.images.Pull``."""

    async def chain(self, chain_id: Digest) -> None:
        """Wait until the store holds this chain of the image. NotFound: it has no such; other errors."""

    def pace(self) -> object:
        """A value that changes as long as the pull gets on."""

    def leave(self) -> None:
        """This caller wants it no more."""


class Source(Protocol):
    """``imagecached.images.Images``."""

    def lend(self, reference: str, hold: Hold) -> Fetch:
        """Start or join a pull of layers and chains, which ``hold`` comes to keep. InvalidInput."""


@dataclass(slots=True)
class _Ride:
    """A pull under way and how many wait for one of its layers; ``timer`` leaves it when nobody does, and
    ``hold`` keeps what came of it until then: afterwards the runtime's records do.
    """

    fetch: Fetch
    hold: Hold
    waiting: int = 0
    timer: asyncio.TimerHandle | None = None


class Misses:
    """The pulls that began because the runtime asked for a layer."""

    def __init__(
        self,
        source: Source,
        store: Store,
        *,
        wait_seconds: float,
        metrics: Metrics,
        events: EventLog,
        linger_seconds: float = _LINGER_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._store = store
        self._wait_seconds = wait_seconds
        self._metrics = metrics
        self._events = events
        self._linger_seconds = linger_seconds
        self._clock = clock
        self._rides: dict[str, _Ride] = {}
        self._failed: dict[str, float] = {}  # image → when that is forgotten

    async def fill(self, chain_id: Digest, labels: Mapping[str, str]) -> None:
        """Wait until the store holds the chain, or for as long as there is hope. Raises only cancellation."""
        image = image_named(labels)
        if image is None:
            return
        if self._failed.get(image, 0.0) > self._clock():
            self._metrics.miss_ended("left", "remembered")
            return
        try:
            await self._ride(image, chain_id)
        except ImagecachedError as error:
            self._give_up(image, error)
        except Exception as error:  # the runtime can still go on by itself
            log.exception("unforeseen error", extra={"image": image})
            self._give_up(image, error)
        else:
            self._metrics.miss_ended("pulled", "none")

    async def _ride(self, image: str, chain_id: Digest) -> None:
        ride = self._board(image)
        try:
            await self._until(ride.fetch, chain_id)
        except Exception:
            self._forsake(image, ride)
            raise
        finally:
            ride.waiting -= 1
            if not ride.waiting:
                loop = asyncio.get_running_loop()
                ride.timer = loop.call_later(self._linger_seconds, self._forsake, image, ride)

    def _board(self, image: str) -> _Ride:
        ride = self._rides.get(image)
        if ride is None:
            ride = self._rides[image] = self._set_out(image)
        if ride.timer is not None:
            ride.timer.cancel()
        ride.waiting += 1
        return ride

    def _set_out(self, image: str) -> _Ride:
        hold = self._store.hold(f"pull {image} for the runtime")
        try:
            return _Ride(self._source.lend(image, hold), hold)
        except BaseException:
            hold.release()
            raise

    async def _until(self, fetch: Fetch, chain_id: Digest) -> None:
        """The chain is there; Unavailable when nothing has moved for too long."""
        pace, still = fetch.pace(), 0
        while still < _LOOKS:
            try:
                async with asyncio.timeout(self._wait_seconds / _LOOKS):
                    await fetch.chain(chain_id)
                    return
            except TimeoutError:
                before, pace = pace, fetch.pace()
                still = still + 1 if pace == before else 0
        raise Unavailable(f"nothing has come for {self._wait_seconds:g} s")

    def _forsake(self, image: str, ride: _Ride) -> None:
        """Nobody shall board this ride any more; who still waits is not disturbed by whoever leaves."""
        if self._rides.get(image) is ride:
            del self._rides[image]
        if ride.waiting <= 1:
            ride.fetch.leave()
            ride.hold.release()

    def _give_up(self, image: str, error: Exception) -> None:
        """Let the runtime go on by itself, and say why, once."""
        kind = error.kind if isinstance(error, ImagecachedError) else ImagecachedError.kind
        self._metrics.miss_ended("left", kind)
        now = self._clock()
        if self._failed.get(image, 0.0) > now:
            return
        self._failed = {name: until for name, until in self._failed.items() if until > now}
        while len(self._failed) >= _MOST_REMEMBERED:
            del self._failed[next(iter(self._failed))]
        self._failed[image] = now + _FORGET_SECONDS
        log.warning("left to the runtime", extra={"image": image, "reason": str(error)})
        self._events.emit("left_to_runtime", image, reason=str(error))


def image_named(labels: Mapping[str, str]) -> str | None:
    """The reference to pull by what CRI says of a layer: exactly its manifest, if that is said. None if it
    says nothing that one could pull.
    """
    name, digest = labels.get(IMAGE_REF), labels.get(MANIFEST_DIGEST)
    if not name:
        return None
    try:
        reference = Reference.parse(name)
        return str(reference.at(Digest.parse(digest)) if digest else reference)
    except InvalidInput:
        return None
