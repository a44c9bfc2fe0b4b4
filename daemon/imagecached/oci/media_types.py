"""Media types by what they mean to us (OCI image-spec, media-types.md; Docker's manifest-v2-2.md)."""

from __future__ import annotations

from typing import Final

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
# Docker 1.10 pushed configs under this name and registries still serve them; only valid in a Docker manifest.
LEGACY_CONFIG: Final = "application/octet-stream"

INDEX_TYPES: Final = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFEST_TYPES: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIG_TYPES: Final = frozenset({OCI_CONFIG, DOCKER_CONFIG})
SCHEMA1_TYPES: Final = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)
_OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_OCI_FOREIGN: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar"
_DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
_DOCKER_FOREIGN: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar"
PLAIN_LAYER_TYPES: Final = frozenset({_OCI_LAYER, _DOCKER_LAYER})
GZIP_LAYER_TYPES: Final = frozenset({f"{_OCI_LAYER}+gzip", f"{_DOCKER_LAYER}.gzip"})
ZSTD_LAYER_TYPES: Final = frozenset({f"{_OCI_LAYER}+zstd", f"{_DOCKER_LAYER}.zstd"})
LAYER_TYPES: Final = PLAIN_LAYER_TYPES | GZIP_LAYER_TYPES | ZSTD_LAYER_TYPES
FOREIGN_LAYER_TYPES: Final = frozenset(
    {
        *(f"{_OCI_FOREIGN}{suffix}" for suffix in ("", "+gzip", "+zstd")),
        *(f"{_DOCKER_FOREIGN}{suffix}" for suffix in ("", ".gzip", ".zstd")),
    }
)
# What a request for a manifest accepts, most wanted first.
ACCEPT_MANIFESTS: Final = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST))


def bare(media_type: str) -> str:
    """``media_type`` in lower case without parameters (``; charset=utf-8``)."""
    return media_type.partition(";")[0].strip().lower()
