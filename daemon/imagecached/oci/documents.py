"""The documents of an image as values: Descriptor, Manifest, Index, ImageConfig (OCI image-spec v1.1).

Made by :mod:`imagecached.oci.parse`, which checks them. ``raw`` is what the registry sent: its digest is the
document's identity, so it is kept as it came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from imagecached.oci.digest import Digest
from imagecached.oci.platform import Platform


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a document says of a blob: ``size`` in bytes; ``platform`` only inside an index."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    platform: Platform | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image: its config and its layers, lowest first. ``raw`` is what was sent."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str
    raw: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Index:
    """Several images under one name, or further indexes; in the order of the document."""

    manifests: tuple[Descriptor, ...]
    media_type: str
    raw: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What a container of this image needs; ``diff_ids`` lowest first, one per layer of the manifest."""

    platform: Platform
    diff_ids: tuple[Digest, ...]
    raw: bytes = field(repr=False)
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    created: str = ""
