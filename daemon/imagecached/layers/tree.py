"""The tree of one layer, as containerd's overlay unpack would leave it in an upper directory."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

Extent = tuple[int, int, int]
"""One piece of a sparse file: (logical offset, length, byte offset in the layer file)."""


@dataclass(slots=True, eq=False)
class Node:
    """One inode. Hard links are one Node under several names; ``nlink`` counts the names (directories: 2 + subdirectories)."""

    mode: int  # st_mode with its S_IFMT part
    uid: int = 0
    gid: int = 0
    mtime: int = 0  # seconds since the epoch
    mtime_ns: int = 0
    rdev: int = 0  # kernel's encoding (os.makedev)
    size: int = 0  # regular files: logical size in bytes
    data: int | list[Extent] | None = None  # regular files: byte offset in the layer file, or the extents; None: no data
    target: bytes = b""  # symbolic links
    xattrs: dict[bytes, bytes] | None = None  # full names: b"user.x", b"trusted.overlay.opaque"
    children: dict[bytes, Node] | None = None  # directories only
    nlink: int = 1
    nid: int = 0  # set by the EROFS writer


class LinkNote(msgspec.Struct, frozen=True, array_like=True):
    """A hard link whose target is not in its own layer: some layer below must have it.

    ``paths``: every name of this inode in the layer. The attributes are those of the (last) link member: unpacking
    sets them on the linked inode. ``uid``/``gid`` None: keep the target's.
    """

    paths: list[bytes]
    target: bytes
    mode: int  # permission bits only
    uid: int | None
    gid: int | None
    mtime: int
    mtime_ns: int
    xattrs: dict[bytes, bytes]  # set on top of the target's (its security.capability is dropped by the change of owner)


class Notes(msgspec.Struct, frozen=True):
    """What only a parent can answer about a layer. Paths are bytes without leading slash, sorted; b"" is the root."""

    implicit: list[bytes] = msgspec.field(default_factory=list)  # directories without entry: 0755 root:root, mtime 0
    links: list[LinkNote] = msgspec.field(default_factory=list)
    whiteouts: list[bytes] = msgspec.field(default_factory=list)  # directories that hold whiteouts
