"""What one layer may cost: the bounds that keep a hostile tar from taking the node.

Exceeding a bound raises :class:`~imagecached.errors.Corrupt` naming the bound and the member. The defaults are far above what real
layers need and low enough that memory and disk stay bounded.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds for one layer; every field is a count or a number of bytes."""

    entries: int = 4_000_000  # members of the archive
    tar_bytes: int = 1 << 40  # the uncompressed stream
    metadata_bytes: int = 2 << 30  # what is written after the stream: inodes, directories, realigned data, notes
    path_bytes: int = 4096  # a member's path, as PATH_MAX of the kernel
    depth: int = 1024  # components of a member's path
    xattr_bytes: int = 1 << 20  # names and values of one member's extended attributes
    sparse_extents: int = 1_000_000  # pieces of one sparse member
    file_bytes: int = 1 << 43  # logical size of one file
    pax_bytes: int = 1 << 20  # one PAX header, GNU long name or sparse map
