"""The use case "give the runtime its snapshots": containerd's contract, over what the store holds.

``rules`` decides and ``changes`` acts, ``filters`` reads the filter language, ``stacks`` says what to mount,
``places`` owns the directories ``<root>/s``, ``usage`` measures, ``misses`` has images pulled, and
``generations`` knows which records a lost database of containerd left. A chain that the store holds is
*adopted*: Prepare with its ChainID as label answers AlreadyExists, and a committed record stands for it from
then on.
Anything else is an *ordinary* snapshot with a directory of its own, possibly above an adopted one.
Invariants: only what the runtime made or adopted has a record, so nothing else is ever listed; a change is
one transaction, so a process that is killed leaves either all of it or none; nothing here speaks to the
network itself, and nothing is unmounted at exit.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from imagecached import aio
from imagecached.errors import ImagecachedError, NotFound
from imagecached.mounts import Mounter, syscalls
from imagecached.oci.digest import Digest
from imagecached.snapshotter import filters, rules
from imagecached.snapshotter.changes import Changes
from imagecached.snapshotter.generations import Generations, Identify, highest_noted
from imagecached.snapshotter.misses import Misses
from imagecached.snapshotter.places import Places
from imagecached.snapshotter.rules import Caller
from imagecached.snapshotter.stacks import Mount, Stacks
from imagecached.snapshotter.usage import Gauge, Usage
from imagecached.store import Book, Record, Store

__all__ = ["Caller", "Misses", "Mount", "Record", "Snapshotter", "Usage"]

log = logging.getLogger(__name__)

_SETTLE_SECONDS: Final = 2.0


class Snapshotter:
    """The ten methods of containerd's snapshots service, for any number of snapshotter names."""

    def __init__(
        self,
        store: Store,
        mounter: Mounter,
        places: Places,
        identify: Identify | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store = store
        self._ledger = store.ledger
        self._mounter = mounter
        self._places = places
        self._stacks = Stacks(store, mounter, places)
        self._generations = Generations(store.shelf, identify, lambda: places.last_number)
        self._changes = Changes(store, places, self._stacks, self._generations.is_stale, clock)
        self._gauge = Gauge()
        self._walking = asyncio.Lock()
        self._tidying = asyncio.Lock()
        self._committed = asyncio.Event()
        self._misses: Misses | None = None

    @classmethod
    async def open(cls, store: Store, mounter: Mounter, identify: Identify | None = None) -> Snapshotter:
        """The snapshotter of an open store; what a crash left without record is put aside. ``identify`` asks
        containerd which installation it is.
        """
        return cls(store, mounter, await aio.finish(_recovered, store), identify)

    def connected(self) -> None:
        """A client has connected; it may be another containerd than the one that did before."""
        self._generations.connected()

    def pull_on_miss(self, misses: Misses) -> None:
        """From now on :meth:`fill` has what is missing pulled."""
        self._misses = misses

    async def fill(self, caller: Caller, parent: str, labels: Mapping[str, str]) -> None:
        """To be awaited before :meth:`prepare` or :meth:`view` with the same arguments: see that the store
        holds what the labels name, if it can be had, or else what is below. It may take as long as an image
        takes, and may be cancelled.

        Above a layer that the runtime unpacked itself it would gain nothing: it fetches all that follow.
        """
        chain_id = rules.named_chain(labels)
        if chain_id is None:
            await self.refill(caller, parent)
        elif self._misses is not None and self._store.snapshot(chain_id) is None:
            below = self._ledger.find(caller.snapshotter, parent) if parent else None
            if not parent or (below is not None and below.chain_id is not None):
                await self._misses.fill(chain_id, labels)

    async def refill(self, caller: Caller, name: str) -> None:
        """See that a prepared chain below ``name``, or itself, is there: one that was lost is pulled again if
        its record says of which image it is. To be awaited before :meth:`mounts`.
        """
        line = self._ledger.line(caller.snapshotter, name) if self._misses is not None and name else []
        chain_id = line[-1].chain_id if line else None
        if self._misses is not None and chain_id is not None and self._store.snapshot(chain_id) is None:
            await self._misses.fill(chain_id, line[-1].labels)

    async def prepare(
        self, caller: Caller, key: str, parent: str, labels: Mapping[str, str]
    ) -> tuple[Mount, ...]:
        """A new active snapshot on a committed parent ("" for none) and how to mount it.

        AlreadyExists: the key is taken, or the label :data:`REF` names a prepared chain, which is then there
        as a committed record with this parent. NotFound, InvalidInput: the parent.
        """
        await self._generations.settle()
        return await aio.finish(self._changes.prepare, caller, key, parent, labels)

    async def view(
        self, caller: Caller, key: str, parent: str, labels: Mapping[str, str]
    ) -> tuple[Mount, ...]:
        """The same, read-only."""
        await self._generations.settle()
        return await aio.finish(self._changes.open, caller, key, "view", parent, labels)

    async def mounts(self, caller: Caller, key: str) -> tuple[Mount, ...]:
        """How to mount an active snapshot or a view. NotFound; FailedPrecondition: it is committed."""
        record = self.stat(caller, key)
        rules.check_mountable(record)
        return await aio.finish(self._stacks.mounts, record)

    async def commit(
        self, caller: Caller, name: str, key: str, labels: Mapping[str, str], *, parent: str = ""
    ) -> None:
        """The active snapshot ``key`` becomes the committed ``name``. ``parent`` gives one to what had none.

        AlreadyExists, NotFound, FailedPrecondition, InvalidInput.
        """
        await self._generations.settle()
        await aio.finish(self._changes.commit, caller, name, key, labels, parent)
        self._committed.set()

    async def remove(self, caller: Caller, key: str) -> None:
        """Forget a snapshot; its name is free at once. NotFound; FailedPrecondition: it has children."""
        record = await aio.finish(self._changes.remove, caller, key)
        self._gauge.forget(record.number)

    def stat(self, caller: Caller, key: str) -> Record:
        """The record. NotFound."""
        record = self._ledger.find(caller.snapshotter, key)
        if record is None:
            raise NotFound(f"no snapshot {key}")
        return record

    async def update(
        self, caller: Caller, name: str, labels: Mapping[str, str], mask: Sequence[str]
    ) -> Record:
        """Change labels. NotFound; InvalidInput: ``mask`` names something else, or a label is too long."""
        return await aio.finish(self._changes.update, caller, name, labels, mask)

    def walk(self, caller: Caller, texts: Sequence[str] = ()) -> Iterator[list[Record]]:
        """The records that one of the filters holds for, in blocks; nothing is locked in between.

        InvalidInput at once: a filter.
        """
        parsed = filters.parse_all(texts)
        return self._chosen(caller, parsed)

    async def usage(self, caller: Caller, key: str) -> Usage:
        """What a snapshot takes alone; of adopted ones with one layer the oldest is charged. NotFound."""
        record = self.stat(caller, key)
        if record.chain_id is not None:
            return self._charge(record, record.chain_id)
        if record.kind == "view":
            return Usage()
        if record.size is not None and record.inodes is not None:
            return Usage(record.size, record.inodes)
        async with self._walking:
            recent = self._gauge.recent(record.number)
            return recent if recent is not None else await aio.finish(self._measure, record)

    async def cleanup(self) -> None:
        """Delete what :meth:`remove` put aside and unmount the layers that nobody needs any more."""
        async with self._tidying:
            await aio.finish(self._tidy)

    def keep(self) -> Collection[Path]:
        """The layer files that live snapshots stand on, for :meth:`Mounter.sweep`; looked up when used."""
        return self._stacks.needed()

    async def tend(self, settle_seconds: float = _SETTLE_SECONDS) -> None:
        """For ever: some time after commits, see that they are durable and freeze what they take.

        Commit itself must be quick: containerd holds its database meanwhile. A pull commits layer after
        layer, so its end is waited for.
        """
        while True:
            await self._committed.wait()
            while self._committed.is_set():
                self._committed.clear()
                await asyncio.sleep(settle_seconds)
            await aio.finish(self._settle)

    def _chosen(self, caller: Caller, parsed: Sequence[filters.Filter]) -> Iterator[list[Record]]:
        ref = rules.asked_ref(parsed)
        blocks = self._ledger.walk(caller.snapshotter)
        if ref is not None:
            blocks = iter([self._ledger.by_ref(caller.snapshotter, ref)])
        for block in blocks:
            chosen = [record for record in block if filters.holds(parsed, partial(rules.field, record))]
            if chosen:
                yield chosen

    def _charge(self, record: Record, chain_id: Digest) -> Usage:
        snapshot = self._store.snapshot(chain_id)
        layer = snapshot and self._store.layer(snapshot.diff_id)
        if not layer or not self._ledger.pays(record):
            return Usage()
        return Usage(layer.disk_bytes, 1)

    def _measure(self, record: Record) -> Usage:
        measured = self._gauge.measure(record.number, self._places.upper(record.number))
        if record.kind == "committed" and measured.whole:
            self._freeze(record, measured.usage)
        return measured.usage

    def _freeze(self, record: Record, usage: Usage) -> None:
        """Note what a committed record takes, unless it is gone or another by now."""

        def body(book: Book) -> None:
            found = book.find(record.snapshotter, record.name)
            if found is not None and found.number == record.number:
                book.put(replace(found, size=usage.size, inodes=usage.inodes))

        self._ledger.change(body)
        self._gauge.forget(record.number)

    def _settle(self) -> None:
        try:
            fd = os.open(self._places.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                syscalls.syncfs(fd)
            finally:
                os.close(fd)
            for record in self._ledger.unmeasured():
                self._measure(record)
        except (ImagecachedError, OSError) as error:
            log.warning("committed snapshots not settled", extra={"reason": str(error)})

    def _tidy(self) -> None:
        self._places.empty_trash()
        self._mounter.sweep(self.keep())


def _recovered(store: Store) -> Places:
    known = store.ledger.numbers()
    places = Places(store.layout.root, {*known, highest_noted(store.shelf)})
    unknown = places.discard_unknown(known)
    if unknown:
        log.info("directories without record put aside", extra={"directories": unknown})
    return places
