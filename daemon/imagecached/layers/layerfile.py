"""The layer file: header, superblock, the tar stream verbatim, EROFS metadata, notes (drawn in ARCHITECTURE.md)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from imagecached.layers.limits import Limits
from imagecached.layers.tree import Node, Notes
from imagecached.oci.digest import Digest

FORMAT: Final = 1
HEADER_BYTES: Final = 1024
DATA_OFFSET: Final = 4096


class Area(msgspec.Struct, frozen=True):
    """A byte range of the file."""

    offset: int
    bytes: int


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """Bytes 0–1023 of a layer file or seam, JSON padded with NUL."""

    format: int
    tar_bytes: int  # 0 in a seam
    entries: int  # members of the tar; in a seam: inodes
    inodes: int
    image: Area  # the EROFS metadata: nid 0 lies at its offset
    notes: Area
    metadata: Area  # everything after the data: realigned sparse data, EROFS metadata, notes, padding
    metadata_digest: str
    diff_id: str | None = None  # layer file
    chain_id: str | None = None  # seam


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """A finished layer file. ``file_bytes`` is its length."""

    diff_id: Digest
    tar_bytes: int
    file_bytes: int
    entries: int


class LayerWriter:
    """Writes one layer file from the bytes of a tar stream; synchronous, one thread at a time.

    ``fd``: an empty regular file, open for reading and writing; stays open and the caller's. ``expected``: the diffID, or None to
    accept any.
    """

    def __init__(self, fd: int, limits: Limits, expected: Digest | None) -> None:
        raise NotImplementedError

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the stream: digest, write, scan. ``data`` may be reused afterwards. Corrupt, Unsupported, OutOfSpace."""
        raise NotImplementedError

    def finish(self) -> LayerInfo:
        """End of stream: check archive and diffID, write metadata and header, make durable, then the superblock, durable."""
        raise NotImplementedError


def write_image(
    fd: int, root: Node, notes: Notes, *, data_end: int, tar_bytes: int, entries: int, limits: Limits,
    diff_id: Digest | None = None, chain_id: Digest | None = None,
) -> Header:
    """Write everything after the data at 4096..``data_end`` and make the file mountable: metadata, notes, header, sync, superblock, sync.

    Shared by layer files (``diff_id``, ``tar_bytes`` > 0) and seams (``chain_id``, file data put at 4096.. by the caller, any 512-aligned
    offset). Node.data are byte offsets in ``fd``. OutOfSpace, Corrupt (metadata limit).
    """
    raise NotImplementedError


def read_header(fd: int) -> Header:
    """The header of an open layer file or seam, Corrupt if it is none or its areas do not fit the file."""
    raise NotImplementedError


def verify_layer(path: Path, diff_id: Digest) -> None:
    """Re-digest tar and metadata of the layer file at ``path`` and compare header and superblock; Corrupt says which differs."""
    raise NotImplementedError
