"""Every key of the configuration: type, bounds, description and default, stated here and nowhere else.

``imagecached config`` and the shipped ``systemd/config.toml`` are printed from these annotations. A section
is one table of the file; all of its keys have defaults. Knows no file and no environment.
"""

from __future__ import annotations

import math
import os
import re
from typing import Any, Final, get_type_hints

import msgspec

from imagecached.config.cluster import ControllerSection, KubernetesSection
from imagecached.config.images import (
    CachesSection,
    LimitsSection,
    PullSection,
    RegistrySection,
    StoreSection,
)
from imagecached.config.keys import SOCKET_PATH_BYTES
from imagecached.config.node import (
    ContainerdSection,
    DaemonSection,
    HttpSection,
    LogSection,
    SnapshotterSection,
)

_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]]+):([0-9]{1,5})")
_PLATFORM: Final = re.compile(r"([A-Za-z0-9_.-]{1,64}(/[A-Za-z0-9_.-]{1,64}){1,2})?")
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9]+([._-][A-Za-z0-9]+)*")  # containerd's grammar
_IDENTIFIER_LENGTH: Final = 76


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
    if key == "socket" and len(os.fsencode(value)) > SOCKET_PATH_BYTES:
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
