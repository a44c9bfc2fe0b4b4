"""What images are, as far as it can be chosen: how they come, how much of them is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from imagecached.config.keys import GiB, KiB, MiB, says


class RegistrySection(msgspec.Struct, frozen=True, kw_only=True):
    """How registries are reached."""

    certs_dirs: Annotated[
        tuple[Path, ...],
        says(
            "Folders of <host>/hosts.toml files (mirrors, certificates); the first that knows the host wins."
        ),
    ] = (Path("/etc/imagecached/certs.d"), Path("/etc/containerd/certs.d"), Path("/etc/docker/certs.d"))
    auth_files: Annotated[
        tuple[Path, ...],
        says("Files in the form of docker's config.json, asked in order for credentials; may be missing."),
    ] = (Path("/etc/imagecached/auth.json"), Path("/root/.docker/config.json"))
    plain_http: Annotated[
        tuple[str, ...], says("Registries (host or host:port) spoken to by HTTP instead of HTTPS.")
    ] = ()
    insecure: Annotated[
        tuple[str, ...], says("Registries (host or host:port) whose certificate is not checked.")
    ] = ()
    connect_timeout_seconds: Annotated[
        float, says("How long a connection and its TLS handshake may take.", ge=0.1, le=600)
    ] = 10.0
    read_timeout_seconds: Annotated[
        float, says("How long a registry may stay silent in the middle of an answer.", ge=0.1, le=3600)
    ] = 30.0
    attempts: Annotated[
        int, says("Tries of one request, the first included; progress starts the count anew.", ge=1, le=100)
    ] = 5


class PullSection(msgspec.Struct, frozen=True, kw_only=True):
    """How much is fetched at once."""

    images_at_once: Annotated[int, says("Images pulled at the same time.", ge=1, le=64)] = 4
    layers_at_once: Annotated[
        int,
        says(
            "Layers fetched and written at once, over all images; 0 = one per processor, at least 2.",
            ge=0,
            le=64,
        ),
    ] = 0
    ranged_connections: Annotated[
        int, says("Connections that share one large layer; 1 = never split.", ge=1, le=32)
    ] = 4
    ranged_chunk_bytes: Annotated[
        int,
        says("Pieces of a split layer; memory per layer is about connections x this.", ge=64 * KiB, le=GiB),
    ] = 8 * MiB
    ranged_threshold_bytes: Annotated[
        int,
        says("Smaller layers come over one connection, which costs less where the network is fast.", ge=0),
    ] = 512 * MiB
    platform: Annotated[
        str,
        says(
            "os/architecture[/variant] chosen from image indexes; empty = this host's.",
            form="os/architecture[/variant] or an empty string",
        ),
    ] = ""


class StoreSection(msgspec.Struct, frozen=True, kw_only=True):
    """How much disk may be used and what gc keeps."""

    quota_bytes: Annotated[
        int, says("Most bytes all layer files together may take; 0 = bounded by the disk only.", ge=0)
    ] = 0
    free_bytes: Annotated[int, says("Always left free on the file system of the root.", ge=0)] = GiB
    free_percent: Annotated[
        int, says("The same as a share of the file system; the greater of the two counts.", ge=0, le=95)
    ] = 5
    gc_high_percent: Annotated[
        int, says("Use of the budget at which gc starts to free unused images.", ge=1, le=100)
    ] = 85
    gc_low_percent: Annotated[int, says("Use of the budget at which it stops.", ge=1, le=100)] = 75
    gc_interval_seconds: Annotated[float, says("Time between two looks at the disk.", ge=1, le=7 * 86400)] = (
        300.0
    )

    def free_of(self, disk_bytes: int) -> int:
        """Bytes to leave free on a file system of ``disk_bytes``."""
        return max(self.free_bytes, disk_bytes * self.free_percent // 100)


class CachesSection(msgspec.Struct, frozen=True, kw_only=True):
    """ImageCaches of this machine."""

    dir: Annotated[
        Path, says("Folder of ImageCache manifests (*.yaml, *.yml, *.json); watched, may be missing.")
    ] = Path("/etc/imagecached/caches.d")
    secrets_dir: Annotated[
        Path,
        says("Pull secrets as <namespace>/<name>, each in the form of docker's config.json."),
    ] = Path("/etc/imagecached/secrets")
    at_once: Annotated[int, says("ImageCaches built at the same time.", ge=1, le=64)] = 4
    compare_interval_seconds: Annotated[
        float,
        says("How often tags are compared with their registry, to show which have moved; 0 = never.", ge=0),
    ] = 3600.0
    automatic: Annotated[
        bool, says("Make an ImageCache for a container that asked for one and found none.")
    ] = True
    most_automatic: Annotated[
        int, says("Automatic ImageCaches kept; of more the longest unused go.", ge=0, le=10_000)
    ] = 25
    most_manual: Annotated[
        int,
        says(
            "Other ImageCaches kept; of more the longest unused go that say elimination-strategy: LRU.",
            ge=0,
            le=100_000,
        ),
    ] = 500


class LimitsSection(msgspec.Struct, frozen=True, kw_only=True):
    """What one layer may cost; a layer beyond is refused as corrupt."""

    # Names and defaults of layers.limits.Limits; a test holds them together, as levels forbid the import.
    entries: Annotated[int, says("Members of the archive.", ge=1)] = 2_000_000
    tar_bytes: Annotated[int, says("The uncompressed archive.", ge=MiB)] = 1 << 40
    metadata_bytes: Annotated[
        int, says("What is written after the archive: inodes, directories, realigned data, notes.", ge=MiB)
    ] = 512 * MiB
    path_bytes: Annotated[int, says("A member's path.", ge=256, le=4096)] = 4096
    depth: Annotated[int, says("Components of a member's path.", ge=16, le=2048)] = 1024
    xattr_bytes: Annotated[int, says("Names and values of one member's extended attributes.", ge=4 * KiB)] = (
        MiB
    )
    sparse_extents: Annotated[int, says("Pieces of one sparse file.", ge=1)] = 1_000_000
    file_bytes: Annotated[int, says("Logical size of one file.", ge=MiB)] = 1 << 43
    pax_bytes: Annotated[int, says("One PAX header, GNU long name or sparse map.", ge=4 * KiB)] = MiB
