"""What follows an admission and must not delay it: automatic caches, the time of the last match, events.

Bounded and coalesced: the same automatic cache is asked for once at a time, a cache's last match is written
at most once an hour, and what does not fit is dropped and counted. A courtesy to later pods; none of it is
needed by the pod that was admitted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from imagecached.errors import AlreadyExists, ImagecachedError
from imagecached.imagecache import Creation, ImageCache, timestamp
from imagecached.kube.client import Kind, kinds
from imagecached.kube.recorder import About, EventType
from imagecached.kube.webhook.decide import Admitted, Told

log = logging.getLogger(__name__)

MATCH_WRITTEN_EVERY: Final = 3600.0
"""Every status that is written goes to every node: an hour is close enough for rules of days."""
_WAITING: Final = 1000
_REMEMBERED: Final = 4096
_REFUSED_FOR: Final = 60.0


class Writer(Protocol):
    """A part of the cluster client."""

    async def create(self, kind: Kind, document: dict[str, Any], *, namespace: str = "") -> Mapping[str, Any]:
        """Create the object."""

    async def patch_status(
        self, kind: Kind, name: str, status: dict[str, Any], *, namespace: str = ""
    ) -> Mapping[str, Any]:
        """Merge into the object's status."""


Tell = Callable[[About, str, str, EventType], None]


class Effects:
    """Takes effects at any time on the event loop; :meth:`run` carries them out one after the other."""

    def __init__(self, writer: Writer, tell: Tell, wall: Callable[[], float] = time.time) -> None:
        self._writer, self._tell, self._wall = writer, tell, wall
        self._waiting: asyncio.Queue[Creation | ImageCache] = asyncio.Queue(_WAITING)
        self._creating: OrderedDict[str, float] = OrderedDict()
        self._matched: OrderedDict[str, float] = OrderedDict()
        self.dropped = 0

    def take(self, admitted: Admitted) -> None:
        """Note what is to be done after this admission."""
        self.tell(*admitted.tell)
        if admitted.create is not None and self._first(self._creating, admitted.create.name, _REFUSED_FOR):
            self._put(admitted.create)
        cache = admitted.matched
        if cache is not None and self._first(self._matched, cache.uid, MATCH_WRITTEN_EVERY):
            self._put(cache)

    def tell(self, *told: Told) -> None:
        """Have these events written."""
        for one in told:
            self._tell(one.about, one.reason, one.message, one.kind)

    async def run(self) -> None:
        """Carry out what was taken, for ever."""
        while True:
            effect = await self._waiting.get()
            try:
                await (self._create(effect) if isinstance(effect, Creation) else self._match(effect))
            except ImagecachedError as error:
                log.warning("not carried out", extra={"cache": effect.name, "error": str(error)})
            finally:
                self._waiting.task_done()

    async def done(self) -> None:
        """Wait until everything taken so far was carried out or has failed."""
        await self._waiting.join()

    async def _create(self, creation: Creation) -> None:
        try:
            await self._writer.create(kinds.IMAGE_CACHES, creation.document())
        except AlreadyExists:
            return
        log.info("automatic cache created", extra={"cache": creation.name, "pod": creation.first_pod})

    async def _match(self, cache: ImageCache) -> None:
        status = {"lastMatchedTime": timestamp(self._wall())}
        await self._writer.patch_status(kinds.IMAGE_CACHES, cache.name, status)

    def _first(self, last: OrderedDict[str, float], key: str, pause: float) -> bool:
        """Was this not asked for within the last ``pause`` seconds?"""
        now = asyncio.get_running_loop().time()
        if key in last and now - last[key] < pause:
            return False
        last[key] = now
        last.move_to_end(key)
        if len(last) > _REMEMBERED:
            last.popitem(last=False)
        return True

    def _put(self, effect: Creation | ImageCache) -> None:
        try:
            self._waiting.put_nowait(effect)
        except asyncio.QueueFull:
            self.dropped += 1
