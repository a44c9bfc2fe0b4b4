"""The blobs of an image's layers, as the registry has them, streamed into containerd's content store.

A registered image lacks them; who pushes, exports or unpacks it elsewhere needs them. The image's manifest
refers to them before the first byte comes, so no lease is needed, and a try that was cut short goes on where
it stopped. Invariants: one fetch of an image by one access at a time, whoever asks; a blob is verified by
containerd and by us; nothing is begun that would not fit beside what the store may still take.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from imagecached.aio import Flights, finish, leaves
from imagecached.errors import Corrupt, OutOfSpace
from imagecached.events import EventLog
from imagecached.oci.digest import Digest
from imagecached.oci.documents import Descriptor
from imagecached.oci.reference import Reference
from imagecached.registration.place import Place
from imagecached.registration.wanted import LayerBlob, Wanted
from imagecached.registry import NOTHING, Access

log = logging.getLogger(__name__)

_AT_ONCE: Final = 2
_PHASES: Final = ("resolve", "fetch", "prepare", "total")

State = Literal["resolving", "fetching", "preparing", "ready", "failed"]
Source = Literal["present", "fetched", "shared"]


class Registry(Protocol):
    """What is asked of ``imagecached.registry.Registry``."""

    def fetch(
        self, ref: Reference, blob: Descriptor, access: Access, *, mirrors: bool, start: int
    ) -> AsyncGenerator[bytes, None]:
        """The bytes of a blob from ``start`` on."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What is fetched: two who ask for the same share it. ``only``: one blob, None for all."""

    name: str
    access: Access
    only: Digest | None
    spare: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where blobs come from, and by which login."""

    image: Reference
    access: Access


@dataclass(slots=True)
class BlobTransfer:
    """How much of one blob is there; ``source``: since before the fetch, or by it."""

    digest: Digest
    diff_id: Digest
    size: int
    source: Source | None = None
    done: int = 0


@dataclass(slots=True)
class Transfer:
    """How far a fetch is; read at any time."""

    image: str
    state: State = "resolving"
    layers: list[BlobTransfer] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_PHASES, 0.0))


@dataclass(frozen=True, slots=True)
class Fetched:
    """The image whose blobs are there."""

    manifest_digest: Digest
    chain_id: Digest


class Fetch:
    """One caller's part in a fetch."""

    def __init__(self, transfer: Transfer, task: asyncio.Task[Fetched | Exception]) -> None:
        self._transfer = transfer
        self._task = task

    def progress(self) -> Transfer:
        """How far it is, at any time."""
        return self._transfer

    async def wait(self) -> Fetched:
        """The result, or the error. Cancelling the wait alone does not leave."""
        await asyncio.wait([self._task])
        outcome = self._task.result()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def leave(self) -> None:
        """This caller wants it no more; nobody else wanting it either cancels it."""
        self._task.cancel()


class Blobs:
    """Fetches the blobs of images. ``prepare`` registers an image and says what it is; ``room`` how many
    bytes more the disk may take. Tasks belong to ``group``.
    """

    def __init__(
        self,
        registry: Registry,
        places: Sequence[Place],
        group: asyncio.TaskGroup,
        *,
        prepare: Callable[[str], Awaitable[Wanted]],
        room: Callable[[], int],
        events: EventLog,
    ) -> None:
        self._registry = registry
        self._places = places
        self._group = group
        self._prepare = prepare
        self._room = room
        self._events = events
        self._flights: Flights[Asked, Fetched] = Flights(group, "blobs")
        self._transfers: dict[Asked, Transfer] = {}

    def fetch(
        self, name: str, access: Access = NOTHING, *, spare: int = 1, only: Digest | None = None
    ) -> Fetch:
        """Begin or join the fetch of an image's blobs, or of one of them. ``spare``: the disk must have room
        for so many times what is missing.
        """
        asked = Asked(name, access, only, spare)
        transfer = self._transfers.setdefault(asked, Transfer(name))
        riding = self._ride(asked, transfer)
        return Fetch(transfer, self._group.create_task(riding, name=f"blobs {name}"))

    async def _ride(self, asked: Asked, transfer: Transfer) -> Fetched | Exception:
        """The result or the error as a value: a failed fetch must not fail the task group."""
        try:
            return await self._flights.join(asked, lambda: self._fetch(asked, transfer))
        except Exception as error:  # noqa: BLE001  raised again to whoever waits
            return error

    async def _fetch(self, asked: Asked, transfer: Transfer) -> Fetched:
        began, reason = time.monotonic(), "cancelled"
        try:
            wanted = await self._prepare(asked.name)
            transfer.layers = _transfers(wanted, asked.only)
            transfer.state = "fetching"
            for place in self._places:
                await self._fill(place, wanted, transfer, asked)
            reason = ""
            return Fetched(wanted.manifest_digest, wanted.chain[-1])
        except Exception as error:
            reason = str(error)
            raise
        finally:
            transfer.state = "failed" if reason else "ready"
            self._transfers.pop(asked, None)
            transfer.seconds["fetch"] = transfer.seconds["total"] = time.monotonic() - began
            self._tell(transfer, reason)

    async def _fill(self, place: Place, wanted: Wanted, transfer: Transfer, asked: Asked) -> None:
        """Bring what one namespace lacks."""
        parts = {one.digest: one for one in transfer.layers}
        lacking = {layer.descriptor.digest: layer for layer in await place.missing_layers(wanted)}
        missing = {digest: layer for digest, layer in lacking.items() if digest in parts}
        for one in transfer.layers:
            if one.digest not in missing and one.source is None:
                one.source, one.done = "present", one.size
        size = sum(layer.descriptor.size for layer in missing.values())
        if size * asked.spare > self._room():
            raise OutOfSpace(
                f"no room for {size} bytes of blobs of {wanted.image}, and as much to unpack them"
            )
        slots, origin = asyncio.Semaphore(_AT_ONCE), Origin(wanted.image, asked.access)
        await place.keep_layers(wanted)
        try:
            async with asyncio.TaskGroup() as group:
                for digest, layer in missing.items():
                    bringing = self._bring(place, origin, layer, parts[digest], slots)
                    group.create_task(bringing, name=f"blob {digest}")
        except ExceptionGroup as errors:
            raise next(leaves(errors)) from None

    async def _bring(
        self, place: Place, origin: Origin, layer: LayerBlob, part: BlobTransfer, slots: asyncio.Semaphore
    ) -> None:
        """One blob. Wrong bytes, a mirror's or those of an earlier try, are asked for once more, of the
        registry itself.
        """
        part.source = part.source or "fetched"
        async with slots:
            try:
                await self._write(place, origin, layer, part, mirrors=True)
            except Corrupt:
                await place.drop_ingest(layer)
                part.done = 0
                try:
                    await self._write(place, origin, layer, part, mirrors=False)
                except Corrupt:
                    await place.drop_ingest(layer)
                    raise

    async def _write(
        self, place: Place, origin: Origin, layer: LayerBlob, part: BlobTransfer, *, mirrors: bool
    ) -> None:
        @asynccontextmanager
        async def chunks(start: int) -> AsyncIterator[AsyncGenerator[bytes, None]]:
            image, blob = origin.image, layer.descriptor
            fetching = self._registry.fetch(image, blob, origin.access, mirrors=mirrors, start=start)
            async with (
                aclosing(fetching) as stream,
                aclosing(stream if start else _checked(stream, blob)) as checked,
            ):
                yield checked

        def advance(offset: int) -> None:
            part.done = max(part.done, offset)

        begun_at = await place.write_layer(layer, chunks, advance)
        if 0 < begun_at < part.size:  # the bytes before it came in another try
            await place.verify_layer(layer)

    def _tell(self, transfer: Transfer, reason: str) -> None:
        size = sum(one.done for one in transfer.layers if one.source == "fetched")
        facts: dict[str, object] = {"bytes": size, "seconds": round(transfer.seconds["total"], 3)}
        if reason:
            facts["reason"] = reason
        kind = "blobs_failed" if reason else "blobs_fetched"
        self._events.emit(kind, transfer.image, **facts)
        log.info(kind.replace("_", " "), extra={"image": transfer.image, **facts})


def _transfers(wanted: Wanted, only: Digest | None) -> list[BlobTransfer]:
    """One per distinct blob, lowest first."""
    parts: dict[Digest, BlobTransfer] = {}
    for layer in wanted.layers:
        blob = layer.descriptor
        if only in (None, blob.digest):
            parts.setdefault(blob.digest, BlobTransfer(blob.digest, layer.diff_id, blob.size))
    return list(parts.values())


async def _checked(stream: AsyncGenerator[bytes, None], blob: Descriptor) -> AsyncGenerator[bytes, None]:
    """The same bytes; Corrupt at their end if they are not those of the digest."""
    hasher = blob.digest.hasher()
    async for data in stream:
        await finish(hasher.update, data)
        yield data
    if hasher.hexdigest() != blob.digest.hex:
        raise Corrupt(f"blob {blob.digest}: the registry sent other bytes")
