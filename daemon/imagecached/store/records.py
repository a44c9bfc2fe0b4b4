"""What the store answers with: frozen values, sizes in bytes, times in seconds since the epoch. No behaviour,
no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from imagecached.errors import InvalidInput
from imagecached.oci.digest import Digest
from imagecached.oci.documents import Descriptor
from imagecached.oci.platform import Platform

PinKind = Literal["image", "chain", "layer"]
FindingKind = Literal[
    "layer_corrupt",
    "layer_missing",
    "layer_orphan",
    "seam_corrupt",
    "seam_missing",
    "seam_orphan",
    "snapshot_invalid",
    "document_corrupt",
    "image_damaged",
]


@dataclass(frozen=True, slots=True)
class StorePolicy:
    """What the store may use of the disk.

    ``quota_bytes``: layer files, seams and unfinished files together, 0 for no bound of our own;
    ``free_bytes``: left free on the file system for others, always. ``gc`` frees down to ``gc_low`` of the
    budget once more than ``gc_high`` of it is used.
    """

    quota_bytes: int = 0
    free_bytes: int = 1 << 30
    gc_high: float = 0.9
    gc_low: float = 0.8

    def __post_init__(self) -> None:
        if self.quota_bytes < 0 or self.free_bytes < 0:
            raise InvalidInput("quota and free space are numbers of bytes, 0 or more")
        if not 0 < self.gc_low <= self.gc_high <= 1:
            raise InvalidInput(f"watermarks must be 0 < low ≤ high ≤ 1, not {self.gc_low} and {self.gc_high}")


@dataclass(frozen=True, slots=True)
class Layer:
    """A published layer file. ``file_bytes`` is its length, ``disk_bytes`` what the file system allocated for
    it.
    """

    diff_id: Digest
    path: Path
    tar_bytes: int
    file_bytes: int
    disk_bytes: int
    entries: int
    created: float
    last_used: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A committed snapshot: the layers of ``parent`` and ``diff_id`` on top.

    ``seam``: one is needed, and it is there. ``disk_bytes`` sums the layers of the whole chain and its seam.
    """

    chain_id: Digest
    parent: Digest | None
    diff_id: Digest
    seam: bool
    disk_bytes: int
    created: float


@dataclass(frozen=True, slots=True)
class Chain:
    """What to mount for a ChainID: the seam above, if any, then ``layers``, the top one first."""

    chain_id: Digest
    seam: Path | None
    layers: tuple[Path, ...]
    diff_ids: tuple[Digest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What a name stands for, without the documents.

    ``name`` is a canonical reference; ``target`` what it resolved to (index or manifest); ``manifest_digest``
    the manifest chosen for ``platform``; ``diff_ids`` lowest first. The store itself sets the fields with
    defaults: ``disk_bytes`` sums the image's layers, shared ones too; a ``damaged`` image lacks layers or
    documents and must be pulled again.
    """

    name: str
    target: Descriptor
    manifest_digest: Digest
    platform: Platform
    diff_ids: tuple[Digest, ...]
    chain_id: Digest
    created: float = 0.0
    last_used: float = 0.0
    disk_bytes: int = 0
    damaged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord(Image):
    """An image with its documents verbatim; ``index`` is None if the target is the manifest itself.

    A document that no longer has its digest reads as ``b""``, and the image as damaged.
    """

    manifest: bytes = field(repr=False)
    config: bytes = field(repr=False)
    index: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Pin:
    """``owner`` wants ``value`` kept: an image name, a ChainID or a DiffID by ``kind``."""

    owner: str
    kind: PinKind
    value: str


@dataclass(frozen=True, slots=True)
class Usage:
    """How full the store is.

    ``disk_bytes``: allocated for layer files, seams and unfinished files; ``logical_bytes``: every image's
    layers summed; ``budget_bytes``: what ``disk_bytes`` may grow to by quota and free floor; ``free_bytes``:
    free on the file system.
    """

    disk_bytes: int
    logical_bytes: int
    budget_bytes: int
    free_bytes: int
    layers: int
    images: int
    snapshots: int
    over_high: bool

    @property
    def dedup_ratio(self) -> float:
        """Logical bytes per byte on disk; 1.0 for an empty store."""
        return self.logical_bytes / self.disk_bytes if self.disk_bytes else 1.0


@dataclass(frozen=True, slots=True)
class GcReport:
    """What gc removed, or would remove: image names (in the order of eviction), ChainIDs, DiffIDs, stray
    files below the root. ``owners``: those that yielded, whose pins are gone.
    """

    images: tuple[str, ...] = ()
    snapshots: tuple[Digest, ...] = ()
    seams: tuple[Digest, ...] = ()
    layers: tuple[Digest, ...] = ()
    orphans: tuple[str, ...] = ()
    freed_bytes: int = 0
    dry_run: bool = False
    owners: tuple[str, ...] = ()

    @property
    def anything(self) -> bool:
        """Is there something that went?"""
        return bool(self.images or self.snapshots or self.layers or self.orphans)


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: ``subject`` is a digest, an image name or a path below the root; ``text`` says what is wrong
    in one line.
    """

    kind: FindingKind
    subject: str
    text: str
    repaired: bool = False
    inode: int = field(default=0, repr=False, compare=False)  # of the file that was read


@dataclass(frozen=True, slots=True)
class FsckReport:
    """Every fault found, and how much was read: files and bytes verified."""

    findings: tuple[Finding, ...]
    files: int
    bytes: int

    @property
    def clean(self) -> bool:
        return not self.findings


@dataclass(frozen=True, slots=True)
class Recovery:
    """What opening had to put right after a crash or loss."""

    unfinished: int = 0  # files removed from ingest/
    adopted: tuple[Digest, ...] = ()  # layer files that had no row
    removed: tuple[str, ...] = ()  # files without row that could not be adopted
    lost_layers: tuple[Digest, ...] = ()  # rows whose file was gone
    damaged: tuple[str, ...] = ()  # images that must be pulled again
    corrupt_database: Path | None = None  # where it was moved to; its images are lost
