"""What we make of images: layer files through the whole pipeline, seams, an overlay as a container gets it.

A layer file is made once per blob and a seam once per chain, as in the daemon. Every layer file and seam must
please ``fsck.erofs``. Needs root.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from imagecached.errors import Corrupt, Unsupported
from imagecached.layers.limits import Limits
from imagecached.layers.pipeline import write_layer
from imagecached.layers.seam import build_seam
from imagecached.mounts.mounter import Mounter
from imagecached.oci.digest import Digest
from imagecached.oci.documents import Descriptor
from tests.support import fsck
from tests.support.awkward.case import Blob, Case
from tests.support.listing import Listing, listing
from tests.support.reference import Refusal

_CHUNK = 60_000


class Ours:
    """Our answers, in a folder of its own that :meth:`close` empties of mounts."""

    def __init__(self, directory: Path, limits: Limits | None = None) -> None:
        self._directory = directory
        self._limits = limits or Limits()
        self._mounter = Mounter.probe(directory)
        self._layers: dict[tuple[str, str], Path | Refusal] = {}
        self._made = 0
        self._seams: dict[tuple[Path, ...], Path | Refusal | None] = {(): None}
        (directory / "layers").mkdir()

    async def tree(self, case: Case) -> Listing | Refusal:
        """Make the image of a case, mount it read-write and look at it."""
        layers: list[Path] = []
        for blob in case.layers:
            layer = await self._layer(blob)
            if isinstance(layer, Refusal):
                return layer
            layers.append(layer)
        seam = self._seam(tuple(layers))
        if isinstance(seam, Refusal):
            return seam
        return self._look([*([seam] if seam else []), *reversed(layers)])

    def close(self) -> None:
        """Unmount and forget all layers."""
        self._mounter.sweep()
        self._layers.clear()
        self._seams = {(): None}
        shutil.rmtree(self._directory / "layers")
        (self._directory / "layers").mkdir()

    async def _layer(self, blob: Blob) -> Path | Refusal:
        digest = Digest.of(blob.data)
        known = self._layers.get((digest, blob.media_type))
        if known is None:
            known = self._layers[digest, blob.media_type] = await self._written(blob, digest)
        return known

    async def _written(self, blob: Blob, digest: Digest) -> Path | Refusal:
        path = self._fresh()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            await write_layer(
                _chunks(blob.data),
                descriptor,
                blob=Descriptor(blob.media_type, digest, len(blob.data)),
                diff_id=Digest.of(blob.tar),
                limits=self._limits,
                check_space=lambda _: None,
                on_bytes=lambda _: None,
            )
        except (Corrupt, Unsupported) as error:
            path.unlink()
            return Refusal(str(error))
        finally:
            os.close(descriptor)
        fsck.check(path)
        return path

    def _seam(self, layers: tuple[Path, ...]) -> Path | Refusal | None:
        """The seam of the chain of these layers, bottom first; None when it needs none."""
        if layers not in self._seams:
            below = self._seam(layers[:-1])
            self._seams[layers] = below if isinstance(below, Refusal) else self._sewn(layers, below)
        return self._seams[layers]

    def _sewn(self, layers: tuple[Path, ...], below: Path | None) -> Path | Refusal | None:
        path = self._fresh()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            needed = build_seam(layers, below, descriptor, self._limits)
        except (Corrupt, Unsupported) as error:
            path.unlink()
            return Refusal(str(error))
        finally:
            os.close(descriptor)
        if not needed:
            path.unlink()
            return None
        fsck.check(path)
        return path

    def _look(self, layers: list[Path]) -> Listing:
        target, writable = self._directory / "t", self._directory / "w"
        target.mkdir()
        writable.mkdir()
        try:
            self._mounter.overlay(layers, target, source="tests", writable=writable)
            try:
                return listing(target)
            finally:
                self._mounter.umount(target)
        finally:
            target.rmdir()
            shutil.rmtree(writable)

    def _fresh(self) -> Path:
        self._made += 1
        return self._directory / "layers" / f"{self._made}.erofs"


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), _CHUNK):
        yield data[start : start + _CHUNK]
