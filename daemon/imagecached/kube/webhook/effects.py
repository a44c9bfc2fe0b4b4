"""What follows an admission and must not delay it: automatic caches, the time of the last match, events.

A question to the webhook proves nothing, so the pod is looked at once the API server has it, and what it is
to cause follows from that pod alone. Bounded and coalesced: an automatic cache is asked for once in a while,
a cache's last match is written at most once an hour, and what does not fit is dropped and counted. A
courtesy to later pods; none of it is needed by the pod that was admitted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from imagecached.errors import AlreadyExists, ImagecachedError, NotFound
from imagecached.imagecache import Candidates, timestamp
from imagecached.imagecache.annotations import CHOSEN_ID
from imagecached.kube.client import Kind, Object, kinds
from imagecached.kube.recorder import About, EventType
from imagecached.kube.webhook.decide import Rules, Seen, Told, wanted

log = logging.getLogger(__name__)

MATCH_WRITTEN_EVERY: Final = 3600.0
"""Every status that is written goes to every node: an hour is close enough for rules of days."""
_CREATED_AGAIN_AFTER: Final = 60.0
_WAITING: Final = 1000
_REMEMBERED: Final = 4096
_LOOKS: Final = 3


class Cluster(Protocol):
    """A part of the cluster client."""

    async def get(self, kind: Kind, name: str, *, namespace: str = "") -> Object:
        """One object; NotFound."""

    async def create(self, kind: Kind, document: dict[str, Any], *, namespace: str = "") -> Object:
        """Create the object."""

    async def patch_status(
        self, kind: Kind, name: str, status: dict[str, Any], *, namespace: str = ""
    ) -> Object:
        """Merge into the object's status."""


Tell = Callable[[About, str, str, EventType], None]


@dataclass(slots=True)
class _Look:
    """A pod to look at, not before ``due`` by the loop's clock, ``left`` more times if it is not there."""

    seen: Seen
    due: float
    left: int


class Effects:
    """Takes pods at any time on the event loop; :meth:`run` looks at them one after the other.

    ``settle``: the seconds after which a pod that was admitted should be stored.
    """

    def __init__(
        self,
        cluster: Cluster,
        tell: Tell,
        candidates: Callable[[], Candidates | None],
        rules: Rules,
        *,
        wall: Callable[[], float] = time.time,
        settle: float = 1.0,
    ) -> None:
        self._cluster, self._tell, self._candidates, self._rules = cluster, tell, candidates, rules
        self._wall, self._settle = wall, settle
        self._waiting: asyncio.Queue[_Look] = asyncio.Queue(_WAITING)
        self._created: OrderedDict[str, float] = OrderedDict()
        self._matched: OrderedDict[str, float] = OrderedDict()
        self.dropped = 0

    def tell(self, *told: Told) -> None:
        """Have these events written."""
        for one in told:
            self._tell(one.about, one.reason, one.message, one.kind)

    def look_at(self, seen: Seen) -> None:
        """Look at this pod once it is stored, if anything is to follow from it."""
        if self._anything(seen):
            self._put(_Look(seen, asyncio.get_running_loop().time() + self._settle, _LOOKS - 1))

    async def run(self) -> None:
        """Look at pods, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            look = await self._waiting.get()
            try:
                await asyncio.sleep(max(0.0, look.due - loop.time()))
                await self._look(look)
            except ImagecachedError as error:
                log.warning("nothing follows", extra={"pod": look.seen.name, "error": str(error)})
            finally:
                self._waiting.task_done()

    async def done(self) -> None:
        """Wait until everything taken so far was looked at."""
        await self._waiting.join()

    async def _look(self, look: _Look) -> None:
        seen, candidates = look.seen, self._candidates()
        if candidates is None or not self._anything(seen):
            return
        try:
            pod = await self._cluster.get(kinds.PODS, seen.name, namespace=seen.namespace)
        except NotFound:
            if look.left:  # its storing takes longer, or it was refused after us
                self._put(_Look(seen, asyncio.get_running_loop().time() + self._settle, look.left - 1))
            return
        if pod["metadata"].get("uid") == seen.uid:
            await self._match(pod, candidates)
            await self._create(pod, candidates)

    async def _match(self, pod: Object, candidates: Candidates) -> None:
        chosen = candidates.named(str((pod["metadata"].get("annotations") or {}).get(CHOSEN_ID, "")))
        if chosen is not None and self._due(self._matched, chosen.id, MATCH_WRITTEN_EVERY):
            status = {"lastMatchedTime": timestamp(self._wall())}
            await self._cluster.patch_status(kinds.IMAGE_CACHES, chosen.cache.name, status)
            self._did(self._matched, chosen.id)

    async def _create(self, pod: Object, candidates: Candidates) -> None:
        creation = wanted(pod, candidates, self._rules)
        if creation is None or not self._due(self._created, creation.name, _CREATED_AGAIN_AFTER):
            return
        try:
            await self._cluster.create(kinds.IMAGE_CACHES, creation.document())
            log.info("automatic cache created", extra={"cache": creation.name, "pod": creation.first_pod})
        except AlreadyExists:
            log.debug("automatic cache is there", extra={"cache": creation.name})
        self._did(self._created, creation.name)

    def _anything(self, seen: Seen) -> bool:
        match = seen.chosen and self._due(self._matched, seen.chosen, MATCH_WRITTEN_EVERY)
        return bool(match or (seen.created and self._due(self._created, seen.created, _CREATED_AGAIN_AFTER)))

    def _due(self, last: OrderedDict[str, float], key: str, pause: float) -> bool:
        """Was this not done within the last ``pause`` seconds?"""
        return key not in last or asyncio.get_running_loop().time() - last[key] >= pause

    def _did(self, last: OrderedDict[str, float], key: str) -> None:
        last[key] = asyncio.get_running_loop().time()
        last.move_to_end(key)
        if len(last) > _REMEMBERED:
            last.popitem(last=False)

    def _put(self, look: _Look) -> None:
        try:
            self._waiting.put_nowait(look)
        except asyncio.QueueFull:
            self.dropped += 1
