"""containerd's own socket, and nobody else talks to it: typed doors over its public contract.

The door is :class:`Containerd`. Level by level: ``_proto`` (what scripts/proto makes of the contract),
``methods`` (paths), ``failures`` (codes → errors), ``wire`` (one call), ``nouns`` → ``leases``, ``content``,
``snapshots``, ``images`` → ``client``. Knows containerd 1.6 to 2.3 and nothing of the store, of registries or
of why somebody asks. Importing it costs several MiB of gRPC, so the daemon does it only where containerd is.
"""

from __future__ import annotations

from imagecached.containerd.client import Containerd, Namespace
from imagecached.containerd.content import Chunks
from imagecached.containerd.nouns import (
    CRI_NAMESPACE,
    Container,
    Content,
    Event,
    ImageRecord,
    Ingest,
    Labels,
    Lease,
    Plugin,
    Server,
    SnapshotInfo,
    Target,
    Version,
)
from imagecached.containerd.snapshots import Snapshots

__all__ = [
    "CRI_NAMESPACE",
    "Chunks",
    "Container",
    "Containerd",
    "Content",
    "Event",
    "ImageRecord",
    "Ingest",
    "Labels",
    "Lease",
    "Namespace",
    "Plugin",
    "Server",
    "SnapshotInfo",
    "Snapshots",
    "Target",
    "Version",
]
