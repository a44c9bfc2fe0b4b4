"""Registries as the controller asks them, without network: every image exists, unless a test says otherwise.

The door is that of ``imagecached.registry.Registry``; what real registries answer is tried in its own tests.
"""

from __future__ import annotations

from imagecached.errors import ImagecachedError, NotFound
from imagecached.oci.digest import Digest
from imagecached.oci.documents import Descriptor, ImageConfig, Manifest
from imagecached.oci.platform import Platform
from imagecached.oci.reference import Reference
from imagecached.registry import NOTHING, Access, Resolved


class Registries:
    """Answers for every image: its digest is that of its text and of how often it was pushed.

    ``errors`` are raised for references that contain the word, ``sizes`` are of a layer.
    """

    def __init__(self) -> None:
        self.errors: dict[str, ImagecachedError] = {}
        self.sizes: dict[str, int] = {}
        self.pushed: dict[str, int] = {}
        self.asked: list[tuple[str, str, Access]] = []

    async def digest(self, ref: Reference, access: Access = NOTHING) -> Digest:
        """What the tag names now."""
        self._refuse(ref)
        self.asked.append(("digest", str(ref), access))
        return self._digest(ref)

    async def resolve(self, ref: Reference, platform: Platform, access: Access = NOTHING) -> Resolved:
        """An image of one layer, made for amd64 and arm64."""
        self._refuse(ref)
        self.asked.append((str(platform), str(ref), access))
        if platform.architecture not in ("amd64", "arm64"):
            raise NotFound(f"{ref}: no image for {platform}")
        size = next((size for word, size in self.sizes.items() if word in str(ref)), 1000)
        layer = Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", Digest.of(b"layer"), size)
        config = Descriptor("application/vnd.oci.image.config.v1+json", Digest.of(b"config"), 10)
        manifest = Manifest(config, (layer,), "application/vnd.oci.image.manifest.v1+json", b"{}")
        target = Descriptor("application/vnd.oci.image.index.v1+json", self._digest(ref), 100)
        own = Digest.of(f"{platform} {target.digest}".encode())
        return Resolved(target, None, manifest, own, ImageConfig(platform, (Digest.of(b"layer"),), b"{}"))

    def _digest(self, ref: Reference) -> Digest:
        return ref.digest or Digest.of(f"{ref} {self.pushed.get(str(ref), 0)}".encode())

    def _refuse(self, ref: Reference) -> None:
        for word, error in self.errors.items():
            if word in str(ref):
                raise error
