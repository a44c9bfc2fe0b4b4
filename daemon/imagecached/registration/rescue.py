"""Brings layers to containers that wait for them: what :mod:`stuck` noticed, acted upon.

The event names a layer, not an image. Where few images have that layer, all of each is brought. Where many
do, as with a common base, only the layer itself is: the next try of whoever waits then fails at a layer above
it, which fewer images have. Invariant: one event never brings more than :data:`FEW` images or layers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from imagecached.containerd import Event
from imagecached.errors import ImagecachedError
from imagecached.events import EventLog
from imagecached.oci.digest import Digest
from imagecached.registration.blobs import Blobs
from imagecached.registration.index import Index
from imagecached.registration.place import Place
from imagecached.registration.stuck import SPARE, Patience, given_up
from imagecached.registration.wanted import Wanted
from imagecached.registry import NOTHING, Access

log = logging.getLogger(__name__)

FEW: Final = 3
_LOOKED_AT: Final = 64  # images of a common layer; hardly ever does it come in two compressions


@dataclass(slots=True)
class Rescue:
    """``wanted`` says what an image of the store is, ``prepared`` registers it first; ``accesses``: by which
    blobs can be had; tasks belong to ``group``.
    """

    snapshotter: str
    index: Index
    places: Sequence[Place]
    blobs: Blobs
    wanted: Callable[[str], Wanted]
    prepared: Callable[[str], Awaitable[Wanted]]
    accesses: dict[str, Access]
    events: EventLog
    group: asyncio.TaskGroup
    patience: Patience = field(default_factory=lambda: Patience(time.monotonic))

    def hear(self, event: Event) -> None:
        """Something happened in containerd."""
        chain_id = given_up(event, self.snapshotter)
        names = self.index.images(chain_id) if chain_id is not None else frozenset()
        if chain_id is None or not names:
            return
        if len(names) > FEW:
            if self.patience.may_try(chain_id):
                self.group.create_task(self._narrow(chain_id, names), name=f"rescue {chain_id}")
            return
        for name in names:
            if self.patience.may_try(name):
                self.group.create_task(self._bring(name, None), name=f"rescue {name}")

    async def _narrow(self, chain_id: Digest, names: Collection[str]) -> None:
        """Bring the topmost layer of a chain that many images have."""
        found: dict[Digest, str] = {}
        for name in sorted(names)[:_LOOKED_AT]:
            try:
                wanted = self.wanted(name)
            except ImagecachedError:
                continue
            layer = wanted.layers[wanted.chain.index(chain_id)]
            found.setdefault(layer.descriptor.digest, name)
            await asyncio.sleep(0)
        for digest, name in list(found.items())[:FEW]:
            await self._bring(name, digest)

    async def _bring(self, name: str, only: Digest | None) -> None:
        """Bring an image's blobs, or one of them, unless somebody is fetching them already."""
        try:
            if not await self._is_waited_for(await self.prepared(name), only):
                return
            self.events.emit("blobs_missing", name)
            log.warning("a container waits for layers of another snapshotter", extra={"image": name})
            access = self.accesses.get(name, NOTHING)
            await self.blobs.fetch(name, access, spare=SPARE, only=only).wait()
        except ImagecachedError as error:
            log.warning("layers not brought", extra={"image": name, "reason": str(error)})

    async def _is_waited_for(self, wanted: Wanted, only: Digest | None) -> bool:
        for place in self.places:
            missing = [
                layer
                for layer in await place.missing_layers(wanted)
                if only in (None, layer.descriptor.digest)
            ]
            if missing and not await place.is_fetching(missing):
                return True
        return False
