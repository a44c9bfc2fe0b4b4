"""What containerd answers with, as frozen values. No behaviour, no I/O.

Digests are as containerd spells them and not checked: whoever acts on one compares it with what it knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

SnapshotKind = Literal["unknown", "view", "active", "committed"]
Labels = Mapping[str, str]

CRI_NAMESPACE: Final = "k8s.io"
"""Where the kubelet's images, sandboxes and containers are."""


@dataclass(frozen=True, slots=True)
class Server:
    """One installation: ``uuid`` is kept below containerd's root, so a wiped root shows as another one."""

    uuid: str


@dataclass(frozen=True, slots=True)
class Version:
    """``number`` as containerd prints it ("1.6.20~ds1", "v2.1.9"), ``parts`` the numbers it begins with."""

    number: str
    parts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plugin:
    """One plugin of the running containerd; ``error`` says why it did not load, empty if it did."""

    type: str
    id: str
    exports: Labels
    capabilities: tuple[str, ...]
    error: str


@dataclass(frozen=True, slots=True)
class Lease:
    """Keeps what was made with it from garbage collection; ``created``: seconds since the epoch."""

    id: str
    created: float
    labels: Labels


@dataclass(frozen=True, slots=True)
class Content:
    """One blob of the content store."""

    digest: str
    size: int
    labels: Labels


@dataclass(frozen=True, slots=True)
class Ingest:
    """A blob that is being written, or was when its writer ended; ``updated``: seconds since the epoch."""

    ref: str
    offset: int
    total: int
    updated: float


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """One snapshot as containerd names it."""

    name: str
    parent: str
    kind: SnapshotKind
    labels: Labels


@dataclass(frozen=True, slots=True)
class Target:
    """What an image record points at."""

    media_type: str
    digest: str
    size: int
    annotations: Labels = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """A name, and what it stands for."""

    name: str
    target: Target
    labels: Labels


@dataclass(frozen=True, slots=True)
class Container:
    """What a container was made of; ``image`` is a name of an image record."""

    id: str
    image: str
    snapshotter: str
    snapshot_key: str
    labels: Labels


@dataclass(frozen=True, slots=True)
class CriImage:
    """An image as the kubelet sees it. ``pinned``: its garbage collection leaves it alone."""

    id: str
    pinned: bool


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    ``name``: of the image, for the topics below ``/images/``; for those below ``/snapshot/`` the key, and
    ``snapshotter`` says whose (not before containerd 1.7). Empty for other topics.
    """

    namespace: str
    topic: str
    name: str = ""
    snapshotter: str = ""
