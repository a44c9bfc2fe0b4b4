"""A store that holds what a test puts: for the use case "use an image"."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from imagecached.errors import NotFound
from imagecached.oci.digest import Digest

NAME: Final = "example.org/busybox:latest"
DIGEST: Final = Digest.of(b"x")


@dataclass(frozen=True, slots=True)
class FakeImage:
    """An image of one layer whose documents say what a test wants."""

    manifest: bytes
    config: bytes
    chain_id: Digest = DIGEST
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class FakeChain:
    """Top first."""

    seam: Path | None
    layers: tuple[Path, ...]


@dataclass
class FakeStore:
    """What Containers needs of a store, with one image."""

    layers: tuple[Path, ...]
    images: dict[str, FakeImage] = field(default_factory=dict)
    held: list[str] = field(default_factory=list)
    touched: list[str] = field(default_factory=list)
    seam: Path | None = None

    def image(self, name: str) -> FakeImage | None:
        return self.images.get(name)

    def chain(self, chain_id: Digest) -> FakeChain:
        if not self.held:
            raise AssertionError("held first, then looked")
        if chain_id != DIGEST:
            raise NotFound(chain_id)
        return FakeChain(self.seam, self.layers)

    def touch(self, name: str) -> None:
        self.touched.append(name)

    @contextmanager
    def hold(self, owner: str, digests: Iterable[Digest] = ()) -> Iterator[None]:
        self.held.append(owner)
        yield
        self.held.remove(owner)

    def put(self, name: str = NAME, **settings: Any) -> None:
        """Add an image whose config has these settings, spelled as in JSON."""
        self.images[name] = FakeImage(*documents(**settings))


def documents(**settings: Any) -> tuple[bytes, bytes]:
    """Manifest and config of an image of one layer."""
    config = {
        "os": "linux",
        "architecture": "amd64",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
    }
    blob = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 1}
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": DIGEST, "size": 1}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob,
        "layers": [layer],
    }
    return json.dumps(manifest).encode(), json.dumps(config).encode()
