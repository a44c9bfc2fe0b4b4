"""One namespace of containerd: looks, and takes the steps of a plan. Decides nothing.

What is made is kept by a lease until the records keep it; the lease expires by itself should we be killed,
and a later run ends those that are left. Invariant: after :meth:`Place.settle` a second look has found
nothing missing.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from imagecached import aio
from imagecached.containerd import Chunks, Namespace, Snapshots
from imagecached.errors import (
    AlreadyExists,
    Corrupt,
    ImagecachedError,
    NotFound,
    Unavailable,
)
from imagecached.oci.digest import Digest
from imagecached.oci.documents import Manifest
from imagecached.oci.parse import parse_manifest
from imagecached.registration import lost, plan
from imagecached.registration.plan import Facts, Step
from imagecached.registration.wanted import OWNER, LayerBlob, Wanted

log = logging.getLogger(__name__)

_REF: Final = "containerd.io/snapshot.ref"
_EXPIRE: Final = "containerd.io/gc.expire"
_LEASE_LIFE: Final = timedelta(hours=1)
_END_SECONDS: Final = 3.0
_FETCHING_SECONDS: Final = 10.0  # a writer that was silent for so long is taken for gone
_ROUNDS: Final = 4

EXTRACTS: Final = "extract-imagecached-"
"""How the keys of our own asking begin."""

Trouble = Literal["unknown", "stale"]
"""The snapshotter does not have the chain; containerd believes in a link whose snapshot is gone."""

OnStep = Callable[[str], None]
"""Told the name of each step before it is taken."""


def nobody(step: str) -> None:
    """Nobody listens."""


class Place:
    """A namespace, seen by the daemon of one snapshotter."""

    def __init__(self, namespace: Namespace, snapshotter: str, on_step: OnStep = nobody) -> None:
        self._namespace = namespace
        self._snapshots = namespace.snapshots(snapshotter)
        self._owner = snapshotter
        self._on_step = on_step
        self._leases: set[str] = set()
        self.name = namespace.name

    async def look(self, wanted: Wanted) -> Facts:
        """What is there of an image."""
        content, images = self._namespace.content, self._namespace.images
        blobs = {blob.digest: await content.info(blob.digest) for blob in wanted.blobs}
        records = {name: await images.get(name) for name in wanted.records}
        return Facts(
            blobs={digest: info.labels for digest, info in blobs.items() if info is not None},
            chain=await lost.has(self._snapshots, wanted.chain[-1]),
            records={name: record for name, record in records.items() if record is not None},
        )

    async def settle(self, wanted: Wanted) -> int | None:
        """Make everything be there; how many steps that took. None: the snapshotter does not have the chain.

        Unavailable: containerd, or the snapshotter behind it, does not answer, others undo what we do, or
        containers stand on a chain that is lost.
        """
        taken, cleaned = 0, False
        for _ in range(_ROUNDS):
            todo = plan.steps(wanted, await self.look(wanted), self._owner)
            if not todo:
                return taken
            trouble = await self._take_all(todo)
            if trouble == "unknown":
                return None
            if trouble == "stale":
                if cleaned:
                    raise Unavailable(f"{wanted.chain[-1]} is lost, and containers still stand on it")
                await lost.let_go(self._namespace, self._snapshots)
                await self.collect()
                cleaned = True
            taken += len(todo)
        raise Unavailable(
            f"namespace {self.name}: image {wanted.image} is changed as fast as it is registered"
        )

    async def missing_layers(self, wanted: Wanted) -> list[LayerBlob]:
        """The layers whose blobs containerd does not have, lowest first."""
        return [
            layer
            for layer in wanted.layers
            if await self._namespace.content.info(layer.descriptor.digest) is None
        ]

    async def is_fetching(self, layers: Sequence[LayerBlob]) -> bool:
        """Whether somebody is writing one of these blobs, by the words of containerd."""
        now = time.time()
        written = {
            ingest.ref
            for ingest in await self._namespace.content.ingests()
            if now - ingest.updated < _FETCHING_SECONDS
        }
        return any(layer.ref in written for layer in layers)

    async def keep_layers(self, wanted: Wanted) -> None:
        """Let the image keep the blobs of its layers, those that are still to come as well. NotFound: its
        manifest is not here.
        """
        await self._namespace.content.label(wanted.manifest_digest, wanted.layer_references)

    async def write_layer(self, layer: LayerBlob, chunks: Chunks, on_offset: Callable[[int], None]) -> int:
        """Stream a layer's blob in, from where an earlier try stopped, which is the answer. No lease: the
        image keeps the blob, and an unfinished one is kept by containerd for a day.
        """
        return await self._namespace.content.write(
            layer.ref,
            layer.descriptor.digest,
            layer.descriptor.size,
            chunks,
            labels=layer.labels,
            on_offset=on_offset,
        )

    async def verify_layer(self, layer: LayerBlob) -> None:
        """Read a layer's blob back and compare its digest. Corrupt, and then it is gone."""
        digest, content = layer.descriptor.digest, self._namespace.content
        hasher = digest.hasher()
        async with aclosing(content.read(digest)) as pieces:
            async for piece in pieces:
                await aio.finish(hasher.update, piece)
        if hasher.hexdigest() != digest.hex:
            await content.delete(digest)
            raise Corrupt(f"blob {digest}: containerd holds other bytes")

    async def drop_ingest(self, layer: LayerBlob) -> None:
        """Forget what has come of a layer's blob."""
        await self._namespace.content.abort(layer.ref)

    async def withdraw(self, manifest_digest: Digest) -> None:
        """Let nobody believe that the image is there, so that the kubelet pulls it. Others' records of it
        stay if the blobs of its layers are there.
        """
        records = await self._namespace.images.listed()
        todo = plan.withdrawal(
            records, self._owner, manifest_digest, has_layers=await self._has_layers(manifest_digest)
        )
        if todo:
            await self._take_all(todo)
            await self.collect()

    async def undo(self, names: Iterable[str], manifests: Iterable[str]) -> int:
        """Undo the registration of all images but those named; when this returns, containerd has collected
        what they kept, unless it is busy. How many records that took.
        """
        records = await self._namespace.images.listed()
        todo = plan.undo(records, self._owner, names=frozenset(names), manifests=frozenset(manifests))
        await self._take_all(todo)
        if todo:
            await self.collect()
        return len(todo)

    async def _has_layers(self, manifest_digest: Digest) -> bool:
        """Whether containerd could unpack the image by itself."""
        content = self._namespace.content
        if await content.info(manifest_digest) is None:
            return False
        manifest = parse_manifest(await content.document(manifest_digest))
        layers = manifest.layers if isinstance(manifest, Manifest) else ()
        return bool(layers) and all([await content.info(layer.digest) for layer in layers])

    async def end_old_leases(self) -> None:
        """End those that an earlier run of ours left."""
        for lease in await self._namespace.leases.listed([f'labels."{OWNER}"=={self._owner}']):
            if lease.id not in self._leases:
                log.info("ending an old lease", extra={"namespace": self.name, "lease": lease.id})
                await self._namespace.leases.delete(lease.id)

    async def _take_all(self, todo: tuple[Step, ...]) -> Trouble | None:
        async with self._leased() as namespace:
            for step in todo:
                self._on_step(type(step).__name__)
                if trouble := await self._take(namespace, step):
                    return trouble
        return None

    async def _take(self, namespace: Namespace, step: Step) -> Trouble | None:
        """What somebody else removed or made meanwhile shows at the next look."""
        images, content = namespace.images, namespace.content
        with suppress(NotFound, AlreadyExists):
            match step:
                case plan.PutBlob(blob, labels):
                    await content.put(f"imagecached-{blob.digest}", blob.digest, blob.data, labels)
                case plan.LabelBlob(digest, labels):
                    await content.label(digest, labels)
                case plan.MakeChain(chain):
                    return await self._make(namespace.snapshots(self._owner), chain)
                case plan.CreateRecord(record):
                    await images.create(record)
                case plan.ChangeRecord(record):
                    await images.retarget(record)
                case plan.LabelRecord(record, labels):
                    await images.label(record, labels)
                case plan.DeleteRecord(name):
                    await images.delete(name)
        return None

    async def _make(self, snapshots: Snapshots, chain: Sequence[Digest]) -> Trouble | None:
        """Let containerd ask the snapshotter for every link, bottom up, as its unpackers do. The answer
        expected is that the link exists already.
        """
        parent = ""
        for chain_id in chain:
            key = f"{EXTRACTS}{secrets.token_hex(6)} {chain_id}"
            if await snapshots.prepare(key, parent, {_REF: chain_id}):
                await snapshots.remove(key)
                return "unknown"
            if not await lost.has(snapshots, chain_id):
                return "stale"
            parent = chain_id
        return None

    @asynccontextmanager
    async def _leased(self) -> AsyncIterator[Namespace]:
        """The namespace with a lease on what is made."""
        lease = f"imagecached-{secrets.token_hex(8)}"
        expire = (datetime.now(UTC) + _LEASE_LIFE).isoformat(timespec="seconds")
        self._leases.add(lease)
        try:
            await self._namespace.leases.create(lease, {_EXPIRE: expire, OWNER: self._owner})
            try:
                yield self._namespace.leased(lease)
            finally:
                await self._end(lease)
        finally:
            self._leases.discard(lease)

    async def _end(self, lease: str) -> None:
        """It expires by itself, and the next run looks for it: so this may fail, but must not take long."""
        with suppress(ImagecachedError, TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await self._namespace.leases.delete(lease)

    async def collect(self) -> None:
        """Let containerd collect its garbage now, and wait for the end of that, but not for long: it cannot
        while a snapshot is being prepared, and one of ours may wait for a pull.
        """
        with suppress(Unavailable):
            async with self._leased() as namespace:
                await namespace.leases.delete(namespace.lease, sync=True)
