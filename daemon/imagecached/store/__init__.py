"""The store: every byte below the root except mounts. The door is :class:`Store`; the rest of this package is
synchronous.

Reads answer at once from indexed rows and may be called from the event loop and from threads. A mutation is
one synchronous function awaited through ``aio.finish``: wholly done or not at all, cancelled or not.
:mod:`layout` draws what is where on disk.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from imagecached import aio
from imagecached.layers.layerfile import LayerInfo
from imagecached.oci.digest import Digest
from imagecached.store import collect, images, layers, pins, recovery, snapshots
from imagecached.store.files import no_space
from imagecached.store.fsck import Check
from imagecached.store.holds import Hold
from imagecached.store.ingests import Ingest
from imagecached.store.layout import Layout
from imagecached.store.ledger import REF, Book, Kind, Ledger, Record
from imagecached.store.records import (
    Chain,
    Finding,
    FsckReport,
    GcReport,
    Image,
    ImageRecord,
    Layer,
    Pin,
    PinKind,
    Recovery,
    Snapshot,
    StorePolicy,
    Usage,
)
from imagecached.store.repair import put_right
from imagecached.store.shelf import Shelf
from imagecached.store.state import InUse, State, Yielding

__all__ = [
    "REF",
    "Book",
    "Chain",
    "Finding",
    "FsckReport",
    "GcReport",
    "Hold",
    "Image",
    "ImageRecord",
    "Ingest",
    "Kind",
    "Layer",
    "Layout",
    "Ledger",
    "OnProgress",
    "Pin",
    "PinKind",
    "Record",
    "Recovery",
    "Shelf",
    "Snapshot",
    "Store",
    "StorePolicy",
    "Usage",
]


LetGo = Callable[..., Awaitable[None]]
OnProgress = Callable[[int, int], None]
"""Called after every file with (bytes verified, bytes in all)."""


class Store:
    """An open store. Use :meth:`open`; nothing else on this machine can open the same root until
    :meth:`close`.
    """

    def __init__(self, state: State, recovered: Recovery) -> None:
        self._state = state
        self.recovered = recovered
        self.layout: Layout = state.layout
        self.ledger = Ledger(state)
        self.shelf = Shelf(state)
        self._let_go: list[LetGo] = []
        self._on_freed: list[Callable[[GcReport], None]] = []

    @classmethod
    async def open(cls, root: Path, policy: StorePolicy) -> Store:
        """Claim ``root`` (made if missing), recover from a crash, check the database.

        FailedPrecondition: in use by another process, made by a newer version, or a folder of someone else.
        OutOfSpace, Corrupt.
        """
        opened: list[Store] = []
        try:
            await aio.finish(lambda: opened.append(cls(*recovery.open_state(root, policy))))
        except BaseException:
            for store in opened:
                await store.close()
            raise
        return opened[0]

    async def close(self) -> None:
        """Write what is noted in memory and give up the root. Every ingest must have ended."""
        await aio.finish(_close, self._state)

    # Reads: from the event loop, at once.

    def layer(self, diff_id: Digest) -> Layer | None:
        """The published layer, or None."""
        return layers.find(self._state, diff_id)

    def layers(self) -> tuple[Layer, ...]:
        """All layers, by DiffID."""
        return layers.every(self._state)

    def snapshot(self, chain_id: Digest) -> Snapshot | None:
        """The committed snapshot, or None."""
        return snapshots.find(self._state, chain_id)

    def snapshots(self) -> tuple[Snapshot, ...]:
        """All snapshots, by ChainID."""
        return snapshots.every(self._state)

    def chain(self, chain_id: Digest) -> Chain:
        """The files to mount for a snapshot, top first; NotFound. Hold the ChainID from before this call
        until it is mounted.
        """
        return snapshots.chain(self._state, chain_id)

    def image(self, name: str) -> ImageRecord | None:
        """The image under a canonical name, or None. One that is ``damaged`` must be pulled again."""
        return images.find(self._state, name)

    def images(self) -> tuple[Image, ...]:
        """All images, by name, without their documents."""
        return images.every(self._state)

    def pins(self, owner: str | None = None) -> tuple[Pin, ...]:
        """All pins, or one owner's."""
        return pins.every(self._state, owner)

    def usage(self) -> Usage:
        """How full the store is."""
        budget = self._state.budget
        totals = budget.totals
        return Usage(
            disk_bytes=budget.used(),
            logical_bytes=totals.logical_bytes,
            budget_bytes=budget.limit(),
            free_bytes=budget.free(),
            layers=totals.layers,
            images=totals.images,
            snapshots=totals.snapshots,
            over_high=budget.excess() > 0,
        )

    def hold(self, owner: str, digests: Iterable[Digest] = ()) -> Hold:
        """A context manager that keeps DiffIDs, and ChainIDs with all below them, from gc for its body.

        Add first, then look whether they are there; more may be added to the hold.
        """
        return self._state.hold(owner, digests)

    def touch(self, name: str) -> None:
        """Note that an image is used now: what gc evicts last. Written to disk later."""
        images.touch(self._state, name)

    def protect(self, in_use: InUse) -> None:
        """Ask ``in_use`` each time gc decides: DiffIDs and ChainIDs that are mounted. It runs in a thread and
        must not call the store.
        """
        self._state.in_use.append(in_use)

    def let_yield(self, yielding: Yielding) -> None:
        """Pins of the owners that ``yielding`` names, with their last use, give way when bytes are wanted.

        It runs in a thread and must not call the store.
        """
        self._state.yielding.append(yielding)

    def on_freed(self, tell: Callable[[GcReport], None]) -> None:
        """Call ``tell`` on the event loop whenever something was freed, by gc or to make room."""
        self._on_freed.append(tell)

    def before_eviction(self, let_go: LetGo) -> None:
        """Before bytes are wanted that images would free if nobody else knew them, ``let_go`` is awaited with
        their names: who told the runtime of them makes it forget them, if it does not use them. Never fails.
        """
        self._let_go.append(let_go)

    # Mutations: each one thread hop, done or not at all.

    @asynccontextmanager
    async def ingest(self, diff_id: Digest) -> AsyncIterator[Ingest]:
        """A new file to write the layer into; removed at the end of the body unless :meth:`publish_layer`
        took it.
        """
        ingest = Ingest(self._state, diff_id)
        try:
            await aio.finish(ingest.open)
            with no_space(f"layer {diff_id}"):
                yield ingest
        finally:
            await aio.finish(ingest.close)

    async def publish_layer(self, ingest: Ingest, info: LayerInfo) -> Layer:
        """Make a finished layer visible; harmless if someone else published the same meanwhile. Corrupt,
        OutOfSpace.
        """
        return await aio.finish(layers.publish, self._state, ingest, info)

    async def put_image(self, record: ImageRecord) -> Snapshot:
        """Record an image whose layers are all here, and a snapshot for every prefix of them, in one
        transaction.

        FailedPrecondition: a layer is missing; Corrupt: a document is not what its digest says, or a layer
        links to a file that no lower layer has; Unsupported: no layers; OutOfSpace.
        """
        return await aio.finish(images.put, self._state, record)

    async def put_chain(self, diff_ids: Sequence[Digest]) -> None:
        """Record a snapshot for every prefix of layers that are here, while the rest of their image is not.

        It is kept by whoever holds the ChainID (see :meth:`hold`), later by its image or by a record.
        FailedPrecondition: a layer is missing; Corrupt, OutOfSpace as for :meth:`put_image`.
        """
        await aio.finish(images.put_chain, self._state, diff_ids)

    async def remove_image(self, name: str) -> None:
        """Forget a name; gc frees the files. NotFound; FailedPrecondition if it is pinned."""
        await aio.finish(images.remove, self._state, name)

    async def pin(self, owner: str, kind: PinKind, value: str) -> None:
        """``owner`` wants an image (canonical name), chain (ChainID) or layer (DiffID) kept until
        :meth:`unpin`.
        """
        await aio.finish(pins.add, self._state, owner, kind, value)

    async def unpin(self, owner: str) -> None:
        """Drop all pins of ``owner``."""
        await aio.finish(pins.remove, self._state, owner)

    async def make_room(self, more: int, *, let_go: bool = True) -> GcReport:
        """See that ``more`` bytes fit, evicting images if that helps; OutOfSpace with the figures if it does
        not. ``let_go``: not for who keeps the runtime waiting meanwhile, which then could not let go.
        """
        if more and let_go:
            await self._ask_to_let_go(more)
        return self._told(await aio.finish(collect.make_room, self._state, more))

    async def gc(self, *, dry_run: bool = False, grace_seconds: float = 0.0) -> GcReport:
        """Remove what nothing keeps; above the high watermark also images, in the order that gc states.

        Below it, layers of no image stay until ``grace_seconds`` after their last use.
        """
        if not dry_run:
            await self._ask_to_let_go()
        report = await aio.finish(collect.collect, self._state, dry_run=dry_run, grace_seconds=grace_seconds)
        return self._told(report)

    async def _ask_to_let_go(self, more: int = 0) -> None:
        names = await aio.finish(collect.known_elsewhere, self._state, more) if self._let_go else ()
        for let_go in self._let_go if names else ():
            await let_go(*names)

    def _told(self, report: GcReport) -> GcReport:
        for tell in self._on_freed if report.anything and not report.dry_run else ():
            tell(report)
        return report

    async def fsck(self, *, repair: bool = False, on_progress: OnProgress | None = None) -> FsckReport:
        """Read and verify everything, and with ``repair`` put right what is wrong.

        It may be cancelled between files. Images that a repair leaves without a layer are found as
        ``image_damaged``.
        """
        check = Check(self._state)
        readings = await aio.finish(check.survey)
        total = sum(reading.bytes for reading in readings)
        for reading in readings:
            await aio.finish(check.verify, reading)
            if on_progress is not None:
                on_progress(check.bytes, total)
        findings: Iterable[Finding] = check.findings
        if repair and check.findings:
            findings = await aio.finish(put_right, self._state, check.findings)
        return FsckReport(tuple(findings), check.files, check.bytes)


def _close(state: State) -> None:
    try:
        if state.touched:
            state.db.transact(lambda connection: images.flush(state, connection))
    finally:
        state.close()
