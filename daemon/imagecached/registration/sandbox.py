"""The pause image, in our snapshotter before the first pod of the runtime handler needs it there.

containerd pulls the sandboxes' image for its default snapshotter only, and may have discarded the blobs of
its layers when a pod of ours comes. So it is an image of the store like any other, pinned there, and
registered by its digests; the record of its tag is containerd's own, and never touched. Which image it is:
configured here, or what CRI says, or what sandboxes run from.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Final, Protocol

from imagecached.aio import backoff
from imagecached.containerd import CRI_NAMESPACE, Containerd, ImageRecord, Namespace
from imagecached.errors import ImagecachedError, InvalidInput, Unsupported
from imagecached.events import EventLog
from imagecached.oci.digest import Digest
from imagecached.oci.reference import Reference
from imagecached.registration.wanted import PINNED, is_image_name
from imagecached.store import Store

log = logging.getLogger(__name__)

OWNER_OF_PIN: Final = "sandbox"
_CONFIG_BYTES: Final = 1 << 20
_LAST_RETRY_SECONDS: Final = 300.0


class Pull(Protocol):
    """``imagecached.images.Pull``."""

    async def wait(self) -> object:
        """The end of it, or its error."""
        ...


class Sandbox:
    """Keeps the pause image in the store; :meth:`run` is a service. ``name``: of the image, if it is
    configured; ``pull`` makes an image present; ``look_seconds``: between two looks.
    """

    def __init__(
        self,
        containerd: Containerd,
        store: Store,
        pull: Callable[[str], Pull],
        *,
        name: str,
        look_seconds: float,
        events: EventLog,
    ) -> None:
        self._containerd = containerd
        self._namespace: Namespace = containerd.namespace(CRI_NAMESPACE)
        self._store = store
        self._pull = pull
        self._name = name
        self._look_seconds = look_seconds
        self._events = events

    async def run(self) -> None:
        """For ever: see that the pause image that containerd uses is here."""
        failures, told = 0, ""
        while True:
            try:
                await self.keep()
                failures = 0
            except ImagecachedError as error:
                failures += 1
                if str(error) != told:
                    told = str(error)
                    log.warning("no pause image", extra={"reason": told})
            pause = backoff(failures, first=1.0, most=_LAST_RETRY_SECONDS) if failures else self._look_seconds
            await asyncio.sleep(pause)

    async def keep(self) -> str:
        """Make the pause image present and pinned if it is not; its name in the store, "" if nobody knows
        which image that is.
        """
        written = self._name or await self.find()
        if not written:
            return ""
        name = str(await self._exactly(Reference.parse(written)))
        if any(pin.value == name for pin in self._store.pins(OWNER_OF_PIN)) and self._is_here(name):
            return name
        await self._pull(name).wait()
        await self._store.unpin(OWNER_OF_PIN)
        await self._store.pin(OWNER_OF_PIN, "image", name)
        self._events.emit("sandbox_image", name)
        log.info("pause image kept", extra={"image": name})
        return name

    def _is_here(self, name: str) -> bool:
        image = self._store.image(name)
        return image is not None and not image.damaged

    async def _exactly(self, reference: Reference) -> Reference:
        """By the digest that containerd's own record of the tag has, where there is one."""
        record = await self._namespace.images.get(str(reference))
        return reference if record is None else reference.at(Digest.parse(record.target.digest))

    async def find(self) -> str:
        """The name that containerd has for its pause image; "" if it does not say."""
        return await self._configured() or await self._running()

    async def _configured(self) -> str:
        """What CRI says of its configuration: containerd 1.x names the image there."""
        try:
            text = (await self._containerd.cri_status()).get("config", "")
        except Unsupported:
            return ""
        try:
            config = json.loads(text) if 0 < len(text) <= _CONFIG_BYTES else {}
        except ValueError:
            return ""
        name = config.get("sandboxImage") if isinstance(config, dict) else None
        return name if isinstance(name, str) else ""

    async def _running(self) -> str:
        """What the sandboxes on this node were made from, or else what CRI itself has pinned."""
        records = await self._namespace.images.listed()
        for container in await self._namespace.sandboxes():
            if name := _tag_of(container.image, records):
                return name
        pinned = [record for record in records if record.labels.get(PINNED[0]) == PINNED[1]]
        names = {name for record in pinned if (name := _tag_of(record.name, records)) and _is_theirs(record)}
        return names.pop() if len(names) == 1 else ""


def _is_theirs(record: ImageRecord) -> bool:
    return not any(key.startswith("imagecached.dev/") for key in record.labels)


def _tag_of(name: str, records: list[ImageRecord]) -> str:
    """A name by tag of the image that a record's name stands for; "" if there is none."""
    by_name = {record.name: record for record in records}
    found = by_name.get(name)
    alike = (
        [name]
        if found is None
        else [record.name for record in records if record.target.digest == found.target.digest]
    )
    return next(iter(sorted(other for other in alike if _is_tag(other))), "")


def _is_tag(name: str) -> bool:
    if not is_image_name(name):
        return False
    try:
        return Reference.parse(name).digest is None
    except InvalidInput:
        return False
