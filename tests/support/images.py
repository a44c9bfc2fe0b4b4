"""Images in a folder: layers, configs, manifests and indexes by digest, pushed to a registry with ``oras``.

    folder = ImageFolder(tmp_path)
    base = folder.layer(tars.tar(tars.file("hello", b"hi")))
    image = folder.image([base], {"Cmd": ["/hello"]})
    folder.push(image, registry.reference("demo/hello:1"))

Shapes follow the OCI image specification; documents may be altered before they are stored, to make bad ones.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import oras.client
import zstandard

Document = dict[str, Any]
Compression = Literal["gzip", "zstd", "none"]

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
LAYER_TYPES: Final[Mapping[Compression, str]] = {
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
    "none": "application/vnd.oci.image.layer.v1.tar",
}
_CREATED: Final = "2023-11-14T22:13:20Z"


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes in the folder, and how a document refers to them."""

    media_type: str
    digest: str
    size: int

    def descriptor(self, **more: object) -> Document:
        """The OCI descriptor, with further members such as ``platform``."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size, **more}


@dataclass(frozen=True, slots=True)
class Layer:
    """A compressed layer and the digest of the tar in it."""

    blob: Blob
    diff_id: str


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest with all it refers to; an index has the images of its platforms as ``parts``."""

    blob: Blob
    blobs: tuple[Blob, ...] = ()
    parts: tuple[Image, ...] = ()


class ImageFolder:
    """Blobs by digest below one folder; storing the same bytes twice is storing them once."""

    def __init__(self, directory: Path) -> None:
        self._blobs = directory / "blobs"
        self._blobs.mkdir(parents=True, exist_ok=True)

    def path(self, blob: Blob) -> Path:
        """Where the bytes of a blob are."""
        return self._blobs / blob.digest.removeprefix("sha256:")

    def store(self, content: bytes, media_type: str) -> Blob:
        """Keep bytes; any media type."""
        blob = Blob(media_type, digest_of(content), len(content))
        self.path(blob).write_bytes(content)
        return blob

    def layer(self, tar: bytes, compression: Compression = "gzip", *, media_type: str | None = None) -> Layer:
        """A layer of this archive; ``media_type`` for Docker's or a wrong one."""
        blob = self.store(_COMPRESS[compression](tar), media_type or LAYER_TYPES[compression])
        return Layer(blob, digest_of(tar))

    def image(
        self,
        layers: Sequence[Layer],
        settings: Mapping[str, object] | None = None,
        *,
        platform: Mapping[str, str] | None = None,
        alter_config: Callable[[Document], None] = lambda _: None,
        alter_manifest: Callable[[Document], None] = lambda _: None,
    ) -> Image:
        """An image of these layers, the lowest first; ``settings``: Cmd, Env, User… of its config."""
        config: Document = {
            "created": _CREATED,
            **(platform or host_platform()),
            "config": dict(settings or {}),
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created": _CREATED, "created_by": "tests.support"} for _ in layers],
        }
        alter_config(config)
        stored = self.store(_json(config), CONFIG)
        manifest: Document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": stored.descriptor(),
            "layers": [layer.blob.descriptor() for layer in layers],
        }
        alter_manifest(manifest)
        blob = self.store(_json(manifest), str(manifest.get("mediaType", MANIFEST)))
        return Image(blob, (stored, *(layer.blob for layer in layers)))

    def index(self, images: Iterable[tuple[Mapping[str, str], Image]]) -> Image:
        """An index that offers each image for its platform."""
        pairs = list(images)
        document: Document = {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [image.blob.descriptor(platform=dict(platform)) for platform, image in pairs],
        }
        return Image(self.store(_json(document), INDEX), parts=tuple(image for _, image in pairs))

    def push(self, image: Image, reference: str) -> str:
        """Push over plain HTTP, children first; gives ``registry/repository@digest``."""
        client = oras.client.OrasClient(insecure=True)
        container = client.get_container(reference)
        for part in image.parts:
            self.push(part, f"{container.registry}/{container.api_prefix}@{part.blob.digest}")
        for blob in image.blobs:
            _accepted(client.upload_blob(str(self.path(blob)), container, blob.descriptor()))
        # Not upload_manifest: that knows one media type and would write our bytes anew.
        _accepted(
            client.do_request(
                f"http://{container.manifest_url()}",
                "PUT",
                data=self.path(image.blob).read_bytes(),
                headers={"Content-Type": image.blob.media_type},
            )
        )
        client.session.close()
        return f"{container.registry}/{container.api_prefix}@{image.blob.digest}"


def digest_of(content: bytes) -> str:
    """``sha256:…`` of these bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def host_platform() -> dict[str, str]:
    """The members ``os`` and ``architecture`` of this machine, in the words of the OCI specification."""
    machine = os.uname().machine
    return {"os": "linux", "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)}


def _gzip(tar: bytes) -> bytes:
    return gzip.compress(tar, compresslevel=6, mtime=0)


def _zstd(tar: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=3).compress(tar)


_COMPRESS: Final[Mapping[Compression, Callable[[bytes], bytes]]] = {
    "gzip": _gzip,
    "zstd": _zstd,
    "none": lambda tar: tar,
}


def _json(document: Document) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def _accepted(response: Any) -> None:
    if not response.ok:
        raise OSError(
            f"the registry answered {response.status_code} to {response.request.method}: {response.text}"
        )
