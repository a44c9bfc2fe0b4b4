"""The use case "make an image present": resolve, plan, fetch what is missing, record.

Owns the flights: one per image and one per layer, whoever asks. Knows neither HTTP nor SQL. Invariants: a
layer is published only after its bytes were verified; an image is recorded only when every layer is there;
what a pull needs is held against gc until it is recorded; callers of different access share no flight,
so nobody gets bytes, or an error, by somebody else's login. A layer that is in the store is used by every
image that names it: to name it is to know the digest of its content.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from imagecached import memory
from imagecached.aio import Flights, leaves
from imagecached.errors import Corrupt, NotFound
from imagecached.events import EventLog
from imagecached.images.transfers import LayerTransfer, Outlook, Pull, PullResult, Transfer
from imagecached.layers.limits import Limits
from imagecached.layers.pipeline import write_layer
from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest
from imagecached.oci.documents import Descriptor, Manifest
from imagecached.oci.parse import parse_manifest
from imagecached.oci.platform import Platform
from imagecached.oci.reference import Reference
from imagecached.registry import NOTHING, Access, Registry, Resolved
from imagecached.store import Hold, ImageRecord, Layer, Store
from imagecached.telemetry import Metrics

__all__ = ["Images", "Outlook", "Pull", "PullResult", "PullSettings", "Transfer"]

log = logging.getLogger(__name__)

_REST_SECONDS: Final = 2.0  # after the last pull, before its memory goes back to the system


class _Key(NamedTuple):
    """What must be the same for two callers to share a flight. ``lent``: the image is not recorded."""

    name: str
    platform: Platform
    access: Access
    lent: bool = False


@dataclass(frozen=True, slots=True)
class PullSettings:
    """How much at once, and what a layer may cost. ``platform``: chosen where a caller names none."""

    images_at_once: int
    layers_at_once: int
    platform: Platform
    limits: Limits


class Images:
    """Pulls images into the store. Its tasks belong to the ``group`` given.

    ``on_ready`` is told the name of every image that is ready, and by which access it came; it must neither
    wait nor fail.
    """

    def __init__(
        self,
        registry: Registry,
        store: Store,
        settings: PullSettings,
        group: asyncio.TaskGroup,
        *,
        metrics: Metrics,
        events: EventLog,
        on_ready: Callable[[str, Access], None] | None = None,
    ) -> None:
        self._registry = registry
        self._store = store
        self._settings = settings
        self._group = group
        self._metrics = metrics
        self._events = events
        self._on_ready = on_ready
        self._image_slots = asyncio.Semaphore(settings.images_at_once)
        self._layer_slots = asyncio.Semaphore(settings.layers_at_once)
        self._image_flights: Flights[_Key, PullResult] = Flights(group, "image")
        self._layer_flights: Flights[tuple[Digest, Access], Layer] = Flights(group, "layer")
        self._transfers: dict[_Key, Transfer] = {}
        self._resting: asyncio.TimerHandle | None = None
        self._moved = 0  # bytes of all pulls

    def waiting(self) -> tuple[int, int]:
        """Pulls and layers that wait for their turn."""
        settings = self._settings
        return (
            max(0, len(self._image_flights) - settings.images_at_once),
            max(0, len(self._layer_flights) - settings.layers_at_once),
        )

    def pull(self, reference: str, platform: str | None = None, access: Access = NOTHING) -> Pull:
        """Start or join a pull. InvalidInput for what is no reference or no platform."""
        return self._begin(Reference.parse(reference), self._wanted(platform), access, None)

    def bring(self, outlook: Outlook, platform: str | None = None, access: Access = NOTHING) -> Pull:
        """The same for exactly what was looked at; nothing is resolved again."""
        name = Reference.parse(outlook.name)
        return self._begin(name, self._wanted(platform), access, outlook.resolved)

    def lend(self, reference: str, hold: Hold) -> Pull:
        """Start or join a pull of layers and chains alone, for someone who knows the image without us: it is
        not recorded, and ``hold`` comes to keep what it is made of until others do.
        """
        pull = self._begin(Reference.parse(reference), self._settings.platform, NOTHING, None, lent=True)
        pull.progress().lend(hold)
        return pull

    async def look(
        self, reference: str, platform: str | None = None, access: Access = NOTHING, *, exactly: bool = False
    ) -> Outlook:
        """What an image is and would take, without fetching a layer. Errors as of a pull.

        Its name is by the digest that the reference has now; ``exactly``: by that of the platform's manifest.
        """
        name = Reference.parse(reference)
        resolved = await self._registry.resolve(name, self._wanted(platform), access)
        named = resolved.target.digest
        if exactly:
            resolved = replace(resolved, target=_by_itself(resolved), index=None, nested=())
        blobs = zip(resolved.config.diff_ids, resolved.manifest.layers, strict=True)
        layers = {diff_id: blob.size for diff_id, blob in blobs}
        return Outlook(str(name.at(resolved.target.digest)), named, resolved, layers)

    async def digest(self, reference: str, access: Access = NOTHING) -> Digest:
        """What a reference names now, for one cheap request."""
        return await self._registry.digest(Reference.parse(reference), access)

    async def name(self, reference: str, of: str) -> None:
        """Let ``reference`` name the image that is here as ``of``, too. NotFound."""
        record = self._store.image(str(Reference.parse(of)))
        if record is None:
            raise NotFound(f"image {of} is not here")
        name = str(Reference.parse(reference))
        await self._store.put_image(replace(record, name=name))
        self._tell(name, NOTHING)

    def _tell(self, name: str, access: Access) -> None:
        if self._on_ready is not None:
            self._on_ready(name, access)

    def _wanted(self, platform: str | None) -> Platform:
        return Platform.parse(platform) if platform else self._settings.platform

    def _begin(
        self,
        name: Reference,
        platform: Platform,
        access: Access,
        known: Resolved | None,
        *,
        lent: bool = False,
    ) -> Pull:
        key = _Key(str(name), platform, access, lent)
        transfer = self._transfers.setdefault(key, Transfer(str(name)))
        passenger = self._ride(key, name, transfer, known)
        task = self._group.create_task(passenger, name=f"pull {name}")
        return Pull(transfer, task, lambda: self._moved)

    async def _ride(
        self, key: _Key, name: Reference, transfer: Transfer, known: Resolved | None
    ) -> PullResult | Exception:
        """The flight's result or error as a value: a failed pull must not fail the task group."""
        try:
            return await self._image_flights.join(key, lambda: self._pull(key, name, transfer, known))
        except Exception as error:  # noqa: BLE001  raised again to whoever waits
            return error
        finally:
            self._rest_later()

    def _rest_later(self) -> None:
        """One timer, begun anew by every pull that ends."""
        if self._resting is not None:
            self._resting.cancel()
        self._resting = asyncio.get_running_loop().call_later(_REST_SECONDS, self._rest)

    def _rest(self) -> None:
        if not self._image_flights:
            memory.give_back()

    async def _pull(
        self, key: _Key, name: Reference, transfer: Transfer, known: Resolved | None
    ) -> PullResult:
        error: BaseException | None = None
        self._transfers[key] = transfer
        transfer.begin()
        try:
            with transfer.phase("total"):
                async with self._image_slots:
                    result = await self._make_present(name, key, transfer, known)
            transfer.state = "ready"
            if not key.lent:
                self._tell(str(name), key.access)
            return result
        except BaseException as caught:
            error = caught
            transfer.state = "failed"
            raise
        finally:
            self._transfers.pop(key, None)
            self._report(transfer, error)

    async def _make_present(
        self, name: Reference, key: _Key, transfer: Transfer, known: Resolved | None
    ) -> PullResult:
        with transfer.phase("resolve"), transfer.turn():
            if here := await self._unchanged(name, key.platform, key.access):
                return self._already(here, transfer)
            resolved = known or await self._registry.resolve(name, key.platform, key.access)
        manifest, config = resolved.manifest, resolved.config
        transfer.plan(manifest.layers, config.diff_ids)
        transfer.state = "fetching"
        with self._store.hold(f"pull {name}", (*config.diff_ids, *chain_ids(config.diff_ids))):
            with transfer.phase("fetch"):
                await self._fetch_missing(name, key.access, transfer)
            transfer.state = "preparing"
            with transfer.phase("prepare"):
                if key.lent:
                    await self._store.put_chain(config.diff_ids)
                else:
                    await self._record(name, resolved)
        return PullResult(resolved.manifest_digest, transfer.chain_ids[-1])

    async def _unchanged(self, name: Reference, platform: Platform, access: Access) -> ImageRecord | None:
        """The image in the store if it is whole and still what ``name`` means: no request by digest, one by
        tag.
        """
        here = self._store.image(str(name))
        if here is None or here.damaged or platform.rank(here.platform) is None:
            return None
        return here if here.target.digest == await self._registry.digest(name, access) else None

    def _already(self, here: ImageRecord, transfer: Transfer) -> PullResult:
        manifest = parse_manifest(here.manifest)
        if isinstance(manifest, Manifest):
            transfer.plan(manifest.layers, here.diff_ids)
        for layer in transfer.layers:
            layer.was_present()
        self._store.touch(here.name)
        return PullResult(here.manifest_digest, here.chain_id)

    async def _fetch_missing(self, name: Reference, access: Access, transfer: Transfer) -> None:
        """Every layer here, or the first error; the biggest are begun first, so that none of them comes last
        alone.
        """
        missing = []
        for layer in transfer.layers:
            if self._store.layer(layer.diff_id) is not None:
                layer.was_present()
            else:
                missing.append(layer)
        size = sum(layer.size for layer in missing)
        await self._store.make_room(size, let_go=not transfer.holds)
        missing.sort(key=lambda layer: layer.size, reverse=True)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._record_chains(transfer), name=f"chains of {name}")
                for layer in missing:
                    group.create_task(
                        self._obtain(name, access, layer, transfer), name=f"layer {layer.diff_id}"
                    )
        except ExceptionGroup as errors:
            raise next(leaves(errors)) from None

    async def _record_chains(self, transfer: Transfer) -> None:
        """While somebody follows the pull, record what lies below the first layer that is missing, whenever
        that has become more; the end is recorded with the image.
        """
        while (depth := transfer.lowest()) < len(transfer.diff_ids):
            if transfer.followed and depth > transfer.recorded:
                await self._store.put_chain(transfer.diff_ids[:depth])
                transfer.recorded = depth
                transfer.bell.ring()
            else:
                await transfer.bell.wait()

    async def _obtain(
        self, name: Reference, access: Access, layer: LayerTransfer, transfer: Transfer
    ) -> None:
        """Fetch a layer, or share the flight of another pull that is fetching it already."""
        key = (layer.diff_id, access)
        await self._layer_flights.join(key, lambda: self._fetch(name, access, layer, transfer))
        layer.source = layer.source or "shared"
        transfer.arrived(layer)

    async def _fetch(
        self, name: Reference, access: Access, layer: LayerTransfer, transfer: Transfer
    ) -> Layer:
        """Fetch and publish a layer; what a mirror got wrong is asked of the registry itself, once."""
        layer.source = "fetched"
        async with self._layer_slots:
            with transfer.turn():
                try:
                    return await self._write(name, access, layer, mirrors=True)
                except Corrupt as error:
                    if not await self._registry.mirrored(name, access):
                        raise
                    log.warning("mirror sent wrong bytes", extra={"image": str(name), "error": str(error)})
                    layer.done = 0
                    return await self._write(name, access, layer, mirrors=False)

    async def _write(self, name: Reference, access: Access, layer: LayerTransfer, *, mirrors: bool) -> Layer:
        def advance(count: int) -> None:
            layer.done += count
            self._moved += count

        async with (
            self._store.ingest(layer.diff_id) as ingest,
            aclosing(self._registry.fetch(name, layer.blob, access, mirrors=mirrors)) as chunks,
        ):
            info = await write_layer(
                chunks,
                ingest.fd,
                blob=layer.blob,
                diff_id=layer.diff_id,
                limits=self._settings.limits,
                check_space=ingest.check_space,
                on_bytes=advance,
            )
            self._metrics.phase_ended("inflate", info.inflate_seconds)
            return await self._store.publish_layer(ingest, info)

    async def _record(self, name: Reference, resolved: Resolved) -> None:
        config = resolved.config
        record = ImageRecord(
            name=str(name),
            target=resolved.target,
            manifest_digest=resolved.manifest_digest,
            platform=config.platform,
            diff_ids=config.diff_ids,
            chain_id=chain_ids(config.diff_ids)[-1],
            manifest=resolved.manifest.raw,
            config=config.raw,
            index=resolved.index.raw if resolved.index else None,
        )
        await self._store.put_image(record)

    def _report(self, transfer: Transfer, error: BaseException | None) -> None:
        """One log line, one event and the metrics of a pull that has ended."""
        facts = {
            "bytes_downloaded": transfer.bytes_from("fetched"),
            "bytes_reused": transfer.bytes_from("present", "shared"),
            "seconds": {name: round(seconds, 4) for name, seconds in transfer.seconds.items()},
        }
        self._metrics.pull_ended(error)
        if error is None:
            for phase in ("resolve", "fetch"):
                self._metrics.phase_ended(phase, transfer.seconds[phase])
            self._metrics.phase_ended("commit", transfer.seconds["prepare"])
            self._metrics.obtained("reused", transfer.bytes_from("present", "shared"))
            sources = {layer.diff_id: layer.source for layer in transfer.layers}
            self._events.emit("pulled", transfer.image, **facts, sources=sources)
            log.info("pulled", extra={"image": transfer.image, **facts})
        elif isinstance(error, asyncio.CancelledError):
            self._events.emit("pull_cancelled", transfer.image, **facts)
            log.info("pull cancelled", extra={"image": transfer.image, **facts})
        else:
            self._events.emit("pull_failed", transfer.image, error=str(error), **facts)
            log.warning("pull failed", extra={"image": transfer.image, "error": str(error), **facts})


def _by_itself(resolved: Resolved) -> Descriptor:
    """The platform's manifest, as if it had been named directly."""
    manifest = resolved.manifest
    return Descriptor(manifest.media_type, resolved.manifest_digest, len(manifest.raw))
