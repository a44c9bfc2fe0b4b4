"""The store and the daemon: layers, snapshots, bundles, gc, fsck, doctor, status."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

from imagecached.api.ports import Verdict


class LayerSummary(Struct, frozen=True, kw_only=True):
    """A layer file. ``images``: how many images use it."""

    diff_id: str
    tar_bytes: int
    file_bytes: int
    disk_bytes: int
    entries: int
    images: int
    created: datetime
    last_used: datetime


class LayerList(Struct, frozen=True, kw_only=True):
    """All layer files."""

    layers: list[LayerSummary]


class SnapshotSummary(Struct, frozen=True, kw_only=True):
    """A committed snapshot: the layers of ``parent`` and ``diff_id`` above. ``seam``: it needed a seam."""

    chain_id: str
    parent: str | None
    diff_id: str
    seam: bool
    disk_bytes: int
    created: datetime


class SnapshotList(Struct, frozen=True, kw_only=True):
    """All snapshots."""

    snapshots: list[SnapshotSummary]


class ContainerBundle(Struct, frozen=True, kw_only=True):
    """An OCI bundle, ready for ``RUNTIME run --bundle DIR ID``; ``runtime`` is a program's path."""

    id: str
    dir: str
    runtime: str


class GcAnswer(Struct, frozen=True, kw_only=True):
    """What gc removed, or would."""

    images: list[str]
    snapshots: list[str]
    layers: list[str]
    orphans: list[str]
    freed_bytes: int
    dry_run: bool


class FsckProgress(Struct, frozen=True, kw_only=True, tag="progress", tag_field="type"):
    """How far fsck is."""

    bytes_done: int
    bytes_total: int


class Fault(Struct, frozen=True, kw_only=True):
    """One thing that fsck found wrong."""

    kind: str
    subject: str
    text: str
    repaired: bool


class FsckDone(Struct, frozen=True, kw_only=True, tag="done", tag_field="type"):
    """The last line of fsck."""

    faults: list[Fault]
    files: int
    bytes: int


class Finding(Struct, frozen=True, kw_only=True):
    """What doctor says of one thing; ``advice`` is empty when there is nothing to do."""

    name: str
    verdict: Verdict
    text: str
    advice: str


class Diagnosis(Struct, frozen=True, kw_only=True):
    """What doctor found."""

    findings: list[Finding]


class Version(Struct, frozen=True, kw_only=True):
    """Which daemon answers."""

    version: str
    python: str
    api: Literal["v1"]


class Status(Struct, frozen=True, kw_only=True):
    """How the daemon is. ``why_not_ready`` is None when it is ready."""

    version: str
    pid: int
    root: str
    mount_method: str
    started: datetime
    uptime_seconds: float
    why_not_ready: str | None
    images: int
    snapshots: int
    layers: int
    disk_used_bytes: int
    disk_budget_bytes: int
    disk_free_bytes: int
    logical_bytes: int
