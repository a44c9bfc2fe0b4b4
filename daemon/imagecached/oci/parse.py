"""Bounded parsing of manifests, indexes and image configs (OCI image-spec v1.1, Docker schema 2).

Bytes are hostile until they pass here. What is no image for this program is refused by name as Unsupported;
what breaks the specification's promises is Corrupt.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from imagecached.errors import Corrupt, InvalidInput, Unsupported
from imagecached.oci.digest import Digest
from imagecached.oci.documents import Descriptor, ImageConfig, Index, Manifest
from imagecached.oci.media_types import (
    CONFIG_TYPES,
    DOCKER_MANIFEST,
    FOREIGN_LAYER_TYPES,
    INDEX_TYPES,
    LAYER_TYPES,
    LEGACY_CONFIG,
    MANIFEST_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA1_TYPES,
    bare,
)
from imagecached.oci.platform import Platform

MAX_MANIFEST_BYTES: Final = 4 << 20
MAX_CONFIG_BYTES: Final = 8 << 20
MAX_LAYERS: Final = 499  # overlayfs stacks 500 directories; one place is the seam's
_MAX_SIZE: Final = (1 << 63) - 1

D = TypeVar("D", bound=msgspec.Struct)


class _Platform(msgspec.Struct, rename={"os_features": "os.features"}):
    os: str = ""
    architecture: str = ""
    variant: str | None = None
    os_features: list[str] | None = None


class _Descriptor(msgspec.Struct, rename="camel"):
    digest: str
    size: int
    media_type: str = ""
    annotations: dict[str, str] | None = None
    platform: _Platform | None = None


class _Envelope(msgspec.Struct, rename="camel"):
    """What tells the kinds of documents apart; each member's type is checked later, by its own kind."""

    schema_version: Any = 2
    media_type: str | None = None
    artifact_type: str | None = None
    config: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    layers: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    manifests: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    fs_layers: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Manifest(msgspec.Struct):
    config: _Descriptor
    layers: list[_Descriptor] | None = None


class _Index(msgspec.Struct):
    manifests: list[_Descriptor] | None = None


class _RootFS(msgspec.Struct):
    type: str = ""
    diff_ids: list[str] | None = None


class _Settings(msgspec.Struct, rename="pascal"):
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    working_dir: str | None = None
    user: str | None = None
    labels: dict[str, str] | None = None
    volumes: dict[str, Any] | None = None
    stop_signal: str | None = None


class _Config(msgspec.Struct, rename={"os_features": "os.features"}):
    architecture: str = ""
    os: str = ""
    variant: str | None = None
    os_features: list[str] | None = None
    rootfs: _RootFS | None = None
    config: _Settings | None = None
    created: str | None = None


def parse_manifest(raw: bytes, media_type: str = "") -> Manifest | Index:
    """The manifest or index in ``raw``; ``media_type`` is what the sender called it, "" if it did not say.

    Unsupported: schema 1, artifacts, foreign or unknown layers, too many layers. Corrupt: no JSON, ambiguous,
    over 4 MiB, or not what it is called.
    """
    envelope = _decode(raw, _Envelope, "manifest", MAX_MANIFEST_BYTES)
    kind = _kind(envelope, bare(media_type))
    if kind in INDEX_TYPES:
        entries = _decode(raw, _Index, "index", MAX_MANIFEST_BYTES).manifests or []
        return Index(tuple(_descriptor(entry, "index") for entry in entries), kind, raw)
    document = _decode(raw, _Manifest, "manifest", MAX_MANIFEST_BYTES)
    layers = tuple(_descriptor(layer, "manifest") for layer in document.layers or [])
    manifest = Manifest(_descriptor(document.config, "manifest"), layers, kind, raw)
    _refuse_unusable(manifest, envelope.artifact_type)
    return manifest


def parse_config(raw: bytes, manifest: Manifest) -> ImageConfig:
    """The image config in ``raw``, checked against the manifest that names it. Corrupt, Unsupported."""
    document = _decode(raw, _Config, "image config", MAX_CONFIG_BYTES)
    if document.rootfs is None or document.rootfs.type != "layers":
        found = "none" if document.rootfs is None else repr(document.rootfs.type[:80])
        raise Unsupported(f"not a container image: the config's rootfs type must be 'layers', it is {found}")
    diff_ids = tuple(_digest(text, "image config") for text in document.rootfs.diff_ids or [])
    if len(diff_ids) != len(manifest.layers):
        raise Corrupt(f"config names {len(diff_ids)} diffIDs, its manifest {len(manifest.layers)} layers")
    settings = document.config or _Settings()
    return ImageConfig(
        platform=Platform.of(
            document.os, document.architecture, document.variant or "", tuple(document.os_features or ())
        ),
        diff_ids=diff_ids,
        raw=raw,
        env=tuple(settings.env or ()),
        entrypoint=tuple(settings.entrypoint or ()),
        cmd=tuple(settings.cmd or ()),
        working_dir=settings.working_dir or "",
        user=settings.user or "",
        labels=settings.labels or {},
        volumes=tuple(settings.volumes or ()),
        stop_signal=settings.stop_signal or "",
        created=document.created or "",
    )


def _decode(raw: bytes, kind: type[D], what: str, limit: int) -> D:
    if len(raw) > limit:
        raise Corrupt(f"{what} larger than {limit} bytes")
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Corrupt(f"{what} cannot be read: {error}{_looks_like(raw)}") from error
    except RecursionError as error:
        raise Corrupt(f"{what} is nested too deeply") from error


def _looks_like(raw: bytes) -> str:
    return " (it looks like HTML)" if raw[:256].lstrip().startswith(b"<") else ""


def _kind(envelope: _Envelope, claimed: str) -> str:
    """The media type to read the document by: its own word, else the sender's, else its shape."""
    for name in (claimed, bare(envelope.media_type or "")):
        if name in SCHEMA1_TYPES:
            raise Unsupported(f"Docker schema 1 manifest ({name}): push the image again with a current tool")
    if envelope.schema_version == 1 or envelope.fs_layers is not msgspec.UNSET:
        raise Unsupported("Docker schema 1 manifest: push the image again with a current tool")
    is_index = envelope.manifests is not msgspec.UNSET
    if is_index and (envelope.layers is not msgspec.UNSET or envelope.config is not msgspec.UNSET):
        raise Corrupt("ambiguous document: both index and manifest")
    stated = bare(envelope.media_type or "")
    known = MANIFEST_TYPES | INDEX_TYPES
    if stated and stated not in known:
        raise Unsupported(f"not an image: media type {stated[:120]!r}")
    if stated and claimed in known and (stated in INDEX_TYPES) != (claimed in INDEX_TYPES):
        raise Corrupt(f"document of type {stated} was sent as {claimed}")
    kind = stated or (claimed if claimed in known else _by_shape(envelope, claimed))
    if (kind in INDEX_TYPES) != is_index:
        raise Corrupt(f"document called {kind} has not the members of one")
    return kind


def _by_shape(envelope: _Envelope, claimed: str) -> str:
    if envelope.manifests is not msgspec.UNSET:
        return OCI_INDEX
    if envelope.config is not msgspec.UNSET:
        return OCI_MANIFEST
    raise Unsupported(f"neither image manifest nor index (sent as {claimed[:120] or 'no type'!r})")


def _refuse_unusable(manifest: Manifest, artifact: str | None) -> None:
    config = manifest.config.media_type
    if config not in CONFIG_TYPES and (manifest.media_type, config) != (DOCKER_MANIFEST, LEGACY_CONFIG):
        raise Unsupported(f"not a container image but an artifact of type {(artifact or config)[:120]!r}")
    if not manifest.layers:
        raise Unsupported("image without layers")
    if len(manifest.layers) > MAX_LAYERS:
        raise Unsupported(f"image of {len(manifest.layers)} layers, at most {MAX_LAYERS} can be stacked")
    for layer in manifest.layers:
        if layer.media_type in FOREIGN_LAYER_TYPES:
            raise Unsupported(f"foreign layer {layer.digest} ({layer.media_type}): registries do not keep it")
        if layer.media_type not in LAYER_TYPES:
            raise Unsupported(f"layer {layer.digest} of unknown media type {layer.media_type[:120]!r}")


def _descriptor(document: _Descriptor, what: str) -> Descriptor:
    if not 0 <= document.size <= _MAX_SIZE:
        raise Corrupt(f"{what} states an impossible size: {document.size}")
    return Descriptor(
        media_type=bare(document.media_type),
        digest=_digest(document.digest, what),
        size=document.size,
        annotations=document.annotations or {},
        platform=_platform(document.platform),
    )


def _platform(document: _Platform | None) -> Platform | None:
    if document is None or not (document.os or document.architecture):
        return None
    features = tuple(document.os_features or ())
    return Platform.of(document.os, document.architecture, document.variant or "", features)


def _digest(text: str, what: str) -> Digest:
    try:
        return Digest.parse(text)
    except InvalidInput as error:
        raise Corrupt(f"{what}: {error}") from error
