"""Every key of the configuration: type, bounds, description and default, stated here and nowhere else.

``imagecached config`` and the shipped ``systemd/config.toml`` are printed from these annotations. A section
is one table of the file; all of its keys have defaults. Knows no file and no environment.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_type_hints

import msgspec
from msgspec import Meta

_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]]+):([0-9]{1,5})")
_PLATFORM: Final = re.compile(r"([A-Za-z0-9_.-]{1,64}(/[A-Za-z0-9_.-]{1,64}){1,2})?")
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9]+([._-][A-Za-z0-9]+)*")  # containerd's grammar
_IDENTIFIER_LENGTH: Final = 76
_SOCKET_PATH_BYTES: Final = 107  # sun_path of sockaddr_un, without its NUL

KiB: Final = 1 << 10
MiB: Final = 1 << 20
GiB: Final = 1 << 30


def _says(text: str, *, ge: float | None = None, le: float | None = None, form: str = "") -> Meta:
    """What a key means, its bounds, and for text the form it must have."""
    return Meta(description=text, ge=ge, le=le, extra={"form": form} if form else None)


class DaemonSection(msgspec.Struct, frozen=True, kw_only=True):
    """Where the daemon keeps its state and listens."""

    root: Annotated[Path, _says("Everything the daemon stores lies below this folder.")] = Path(
        "/var/lib/imagecached"
    )
    socket: Annotated[
        Path,
        _says(
            "Unix socket of the HTTP API that imagecachectl talks to.",
            form=f"an absolute path of at most {_SOCKET_PATH_BYTES} bytes",
        ),
    ] = Path("/run/imagecached/imagecached.sock")
    socket_group: Annotated[
        str,
        _says(
            "Members of this group may use the socket besides root; a group that does not exist is ignored."
        ),
    ] = "imagecached"


class HttpSection(msgspec.Struct, frozen=True, kw_only=True):
    """Metrics and health over TCP."""

    address: Annotated[
        str,
        _says(
            "Address of /metrics, /livez and /readyz, open to everyone who reaches it; empty = none.",
            form="host:port, [IPv6]:port or an empty string",
        ),
    ] = "127.0.0.1:9273"


class SnapshotterSection(msgspec.Struct, frozen=True, kw_only=True):
    """The door to containerd."""

    socket: Annotated[
        str,
        _says(
            "Unix socket of the snapshots service that containerd uses as a proxy plugin; empty = none.",
            form=f"an absolute path of at most {_SOCKET_PATH_BYTES} bytes or an empty string",
        ),
    ] = ""
    pull_on_miss: Annotated[
        bool,
        _says("Pull an image that containerd begins to unpack and that is not here, instead of containerd."),
    ] = True
    miss_wait_seconds: Annotated[
        float,
        _says("Leave it to containerd when nothing of it has come for so long.", ge=0.1, le=3600),
    ] = 60.0


class ContainerdSection(msgspec.Struct, frozen=True, kw_only=True):
    """What containerd is told of the images that are ready, so that nobody pulls them."""

    socket: Annotated[
        str,
        _says(
            "containerd's own unix socket, usually /run/containerd/containerd.sock; empty = tell it nothing.",
            form=f"an absolute path of at most {_SOCKET_PATH_BYTES} bytes or an empty string",
        ),
    ] = ""
    namespaces: Annotated[
        tuple[str, ...],
        _says("Namespaces of containerd in which images become known; k8s.io is the kubelet's."),
    ] = ("k8s.io",)
    snapshotter: Annotated[
        str, _says("The name that containerd's configuration gives to our snapshots service.")
    ] = "imagecached"
    mode: Annotated[
        Literal["handler", "default"],
        _says(
            "handler = a runtime handler uses our snapshots, and images are known by digest only;"
            " default = all containers use them, and tags are known, too."
        ),
    ] = "handler"
    sandbox_image: Annotated[
        str, _says("The pause image that a runtime handler needs from us; empty = found out from containerd.")
    ] = ""
    fetch_missing_blobs: Annotated[
        bool,
        _says(
            "Fetch the layers of an image for a container that waits for them, because another snapshotter"
            " than ours must unpack them."
        ),
    ] = True
    check_interval_seconds: Annotated[
        float, _says("Time between two looks at everything that containerd should know.", ge=1, le=86400)
    ] = 600.0


class RegistrySection(msgspec.Struct, frozen=True, kw_only=True):
    """How registries are reached."""

    certs_dirs: Annotated[
        tuple[Path, ...],
        _says(
            "Folders of <host>/hosts.toml files (mirrors, certificates); the first that knows the host wins."
        ),
    ] = (Path("/etc/imagecached/certs.d"), Path("/etc/containerd/certs.d"), Path("/etc/docker/certs.d"))
    auth_files: Annotated[
        tuple[Path, ...],
        _says("Files in the form of docker's config.json, asked in order for credentials; may be missing."),
    ] = (Path("/etc/imagecached/auth.json"), Path("/root/.docker/config.json"))
    plain_http: Annotated[
        tuple[str, ...], _says("Registries (host or host:port) spoken to by HTTP instead of HTTPS.")
    ] = ()
    insecure: Annotated[
        tuple[str, ...], _says("Registries (host or host:port) whose certificate is not checked.")
    ] = ()
    connect_timeout_seconds: Annotated[
        float, _says("How long a connection and its TLS handshake may take.", ge=0.1, le=600)
    ] = 10.0
    read_timeout_seconds: Annotated[
        float, _says("How long a registry may stay silent in the middle of an answer.", ge=0.1, le=3600)
    ] = 30.0
    attempts: Annotated[
        int, _says("Tries of one request, the first included; progress starts the count anew.", ge=1, le=100)
    ] = 5


class PullSection(msgspec.Struct, frozen=True, kw_only=True):
    """How much is fetched at once."""

    images_at_once: Annotated[int, _says("Images pulled at the same time.", ge=1, le=64)] = 4
    layers_at_once: Annotated[
        int,
        _says(
            "Layers fetched and written at once, over all images; 0 = one per processor, at least 2.",
            ge=0,
            le=64,
        ),
    ] = 0
    ranged_connections: Annotated[
        int, _says("Connections that share one large layer; 1 = never split.", ge=1, le=32)
    ] = 4
    ranged_chunk_bytes: Annotated[
        int,
        _says("Pieces of a split layer; memory per layer is about connections x this.", ge=64 * KiB, le=GiB),
    ] = 8 * MiB
    ranged_threshold_bytes: Annotated[
        int,
        _says("Smaller layers come over one connection, which costs less where the network is fast.", ge=0),
    ] = 512 * MiB
    platform: Annotated[
        str,
        _says(
            "os/architecture[/variant] chosen from image indexes; empty = this host's.",
            form="os/architecture[/variant] or an empty string",
        ),
    ] = ""


class StoreSection(msgspec.Struct, frozen=True, kw_only=True):
    """How much disk may be used and what gc keeps."""

    quota_bytes: Annotated[
        int, _says("Most bytes all layer files together may take; 0 = bounded by the disk only.", ge=0)
    ] = 0
    free_bytes: Annotated[int, _says("Always left free on the file system of the root.", ge=0)] = GiB
    free_percent: Annotated[
        int, _says("The same as a share of the file system; the greater of the two counts.", ge=0, le=95)
    ] = 5
    gc_high_percent: Annotated[
        int, _says("Use of the budget at which gc starts to free unused images.", ge=1, le=100)
    ] = 85
    gc_low_percent: Annotated[int, _says("Use of the budget at which it stops.", ge=1, le=100)] = 75
    gc_interval_seconds: Annotated[
        float, _says("Time between two looks at the disk.", ge=1, le=7 * 86400)
    ] = 300.0

    def free_of(self, disk_bytes: int) -> int:
        """Bytes to leave free on a file system of ``disk_bytes``."""
        return max(self.free_bytes, disk_bytes * self.free_percent // 100)


class CachesSection(msgspec.Struct, frozen=True, kw_only=True):
    """ImageCaches of this machine."""

    dir: Annotated[
        Path, _says("Folder of ImageCache manifests (*.yaml, *.yml, *.json); watched, may be missing.")
    ] = Path("/etc/imagecached/caches.d")
    secrets_dir: Annotated[
        Path,
        _says("Pull secrets as <namespace>/<name>, each in the form of docker's config.json."),
    ] = Path("/etc/imagecached/secrets")
    at_once: Annotated[int, _says("ImageCaches built at the same time.", ge=1, le=64)] = 4
    compare_interval_seconds: Annotated[
        float,
        _says("How often tags are compared with their registry, to show which have moved; 0 = never.", ge=0),
    ] = 3600.0
    automatic: Annotated[
        bool, _says("Make an ImageCache for a container that asked for one and found none.")
    ] = True
    most_automatic: Annotated[
        int, _says("Automatic ImageCaches kept; of more the longest unused go.", ge=0, le=10_000)
    ] = 25
    most_manual: Annotated[
        int,
        _says(
            "Other ImageCaches kept; of more the longest unused go that say elimination-strategy: LRU.",
            ge=0,
            le=100_000,
        ),
    ] = 500


class LimitsSection(msgspec.Struct, frozen=True, kw_only=True):
    """What one layer may cost; a layer beyond is refused as corrupt."""

    # Names and defaults of layers.limits.Limits; a test holds them together, as levels forbid the import.
    entries: Annotated[int, _says("Members of the archive.", ge=1)] = 2_000_000
    tar_bytes: Annotated[int, _says("The uncompressed archive.", ge=MiB)] = 1 << 40
    metadata_bytes: Annotated[
        int, _says("What is written after the archive: inodes, directories, realigned data, notes.", ge=MiB)
    ] = 512 * MiB
    path_bytes: Annotated[int, _says("A member's path.", ge=256, le=4096)] = 4096
    depth: Annotated[int, _says("Components of a member's path.", ge=16, le=2048)] = 1024
    xattr_bytes: Annotated[
        int, _says("Names and values of one member's extended attributes.", ge=4 * KiB)
    ] = MiB
    sparse_extents: Annotated[int, _says("Pieces of one sparse file.", ge=1)] = 1_000_000
    file_bytes: Annotated[int, _says("Logical size of one file.", ge=MiB)] = 1 << 43
    pax_bytes: Annotated[int, _says("One PAX header, GNU long name or sparse map.", ge=4 * KiB)] = MiB


class KubernetesSection(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster, where there is one."""

    node: Annotated[
        str,
        _says(
            "The name of this machine's Node object, whose ImageCaches are kept ready; empty = no cluster."
        ),
    ] = ""
    kubeconfig: Annotated[
        str,
        _says(
            "How the API server is reached; empty = by the pod's service account, else by KUBECONFIG.",
            form="an absolute path or an empty string",
        ),
    ] = ""


class ControllerSection(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster's controller (imagecached controller)."""

    namespace: Annotated[str, _says("Where the controller, its Lease and its Secret live.")] = (
        "imagecached-system"
    )
    address: Annotated[
        str,
        _says(
            "Address of the admission webhook; empty = none.",
            form="host:port, [IPv6]:port or an empty string",
        ),
    ] = "0.0.0.0:9443"
    workers: Annotated[int, _says("ImageCaches worked on at the same time.", ge=1, le=64)] = 8
    rollout_nodes: Annotated[int, _says("Nodes that fetch one ImageCache at the same time.", ge=1)] = 20
    rollout_percent: Annotated[
        int, _says("The same as a share of its nodes; the greater of the two counts.", ge=0, le=100)
    ] = 5
    node_patience_seconds: Annotated[
        float,
        _says("A node that reports nothing new of a build for so long is not waited for.", ge=10, le=86400),
    ] = 900.0
    resolve_patience_seconds: Annotated[
        float,
        _says(
            "How long a registry that cannot be asked is asked again before a build fails.",
            ge=0,
            le=7 * 86400,
        ),
    ] = 1800.0
    drift_interval_seconds: Annotated[
        float,
        _says(
            "Time between two looks at what tags of ready ImageCaches name now; 0 = never.",
            ge=0,
            le=30 * 86400,
        ),
    ] = 21600.0
    manual_caches: Annotated[
        int, _says("ImageCaches made by people; beyond, those that allow it go.", ge=1, le=10000)
    ] = 500
    automatic_caches: Annotated[
        int, _says("ImageCaches made for pods; beyond, the longest unused go.", ge=0, le=10000)
    ] = 25
    lease_seconds: Annotated[float, _says("How long a leader that is silent is believed.", ge=1, le=600)] = (
        15.0
    )
    lease_renew_seconds: Annotated[
        float, _says("How long a leader that cannot renew its Lease goes on leading.", ge=0.5, le=600)
    ] = 10.0
    lease_retry_seconds: Annotated[float, _says("Time between two looks at the Lease.", ge=0.1, le=60)] = 2.0


class LogSection(msgspec.Struct, frozen=True, kw_only=True):
    """What is written to standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], _says("The least important level written.")
    ] = "info"
    format: Annotated[
        Literal["auto", "json", "text"], _says("auto = text on a terminal, JSON lines elsewhere.")
    ] = "auto"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    daemon: DaemonSection = DaemonSection()
    http: HttpSection = HttpSection()
    snapshotter: SnapshotterSection = SnapshotterSection()
    containerd: ContainerdSection = ContainerdSection()
    registry: RegistrySection = RegistrySection()
    pull: PullSection = PullSection()
    store: StoreSection = StoreSection()
    caches: CachesSection = CachesSection()
    limits: LimitsSection = LimitsSection()
    kubernetes: KubernetesSection = KubernetesSection()
    controller: ControllerSection = ControllerSection()
    log: LogSection = LogSection()


KEYS: Final[dict[str, dict[str, Any]]] = {
    name: get_type_hints(section, include_extras=True) for name, section in get_type_hints(Config).items()
}
"""Section → key → ``Annotated[type, Meta]``, in the order of the file."""


def check_meaning(section: str, key: str, value: Any) -> None:
    """What a type cannot say about one value. ValueError when it is wrong."""
    str(value).encode()  # undecodable bytes of the environment arrive as surrogates
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not finite")
    if key == "address":
        split_address(value)
    if key == "platform" and not _PLATFORM.fullmatch(value):
        raise ValueError("not a platform")
    if key == "socket" and len(os.fsencode(value)) > _SOCKET_PATH_BYTES:
        raise ValueError("too long for a unix socket")
    if section in ("snapshotter", "containerd") and key == "socket" and value and not value.startswith("/"):
        raise ValueError("not an absolute path")
    if key == "kubeconfig" and value and not value.startswith("/"):
        raise ValueError("not an absolute path")
    if section == "containerd" and key in ("namespaces", "snapshotter"):
        for name in (value,) if isinstance(value, str) else value:
            if not _IDENTIFIER.fullmatch(name) or len(name) > _IDENTIFIER_LENGTH:
                raise ValueError("not a name of containerd's")


def check_together(config: Config) -> None:
    """What one value demands of another. ValueError naming the key when it is wrong."""
    low, high = config.store.gc_low_percent, config.store.gc_high_percent
    if low > high:
        raise ValueError(f"store.gc_low_percent: expected at most store.gc_high_percent ({high}), got {low}")
    if config.containerd.socket and not config.snapshotter.socket:
        raise ValueError("containerd.socket: expected snapshotter.socket with it, got none")
    if config.containerd.socket and not config.containerd.namespaces:
        raise ValueError("containerd.namespaces: expected at least one")
    lease = config.controller
    if not lease.lease_retry_seconds < lease.lease_renew_seconds < lease.lease_seconds:
        found = f"{lease.lease_retry_seconds}, {lease.lease_renew_seconds} and {lease.lease_seconds}"
        raise ValueError(f"controller.lease_*: expected retry < renew < lease_seconds, got {found}")


def split_address(address: str) -> tuple[str, int] | None:
    """Host and port of an ``address``; None for the empty string. ValueError for anything else."""
    if not address:
        return None
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match[2]) > 0xFFFF:
        raise ValueError("not host:port")
    return match[1].strip("[]"), int(match[2])
