"""One inode of a layer: what the tree is made of and what the EROFS writer stores."""

from __future__ import annotations

import stat
from dataclasses import dataclass

Extent = tuple[int, int, int]
"""One piece of a sparse file: (logical offset, length, byte offset in the layer file)."""


@dataclass(slots=True, eq=False)
class Node:
    """One inode. Hard links are one Node under several names."""

    mode: int  # st_mode with its S_IFMT part
    uid: int = 0
    gid: int = 0
    mtime: int = 0  # seconds since the epoch, 1970…2262
    mtime_ns: int = 0
    rdev: int = 0  # as os.makedev gives it
    size: int = 0  # regular files: logical size in bytes
    data: int | list[Extent] | None = (
        None  # regular files: byte offset in the layer file, or the extents; None: no data
    )
    target: bytes = b""  # symbolic links
    xattrs: dict[bytes, bytes] | None = None  # full names: b"user.x", b"trusted.overlay.opaque"
    children: dict[bytes, Node] | None = None  # directories only
    nlink: int = 0  # set by the EROFS writer
    nid: int = 0  # likewise; 0 outside of it


def is_whiteout(node: Node) -> bool:
    """Whether overlayfs takes this inode for a whiteout."""
    return node.rdev == 0 and stat.S_ISCHR(node.mode)
