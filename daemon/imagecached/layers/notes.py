"""What only the layers below can answer about a layer. Stored behind its metadata, read to make a chain."""

from __future__ import annotations

import stat

import msgspec

from imagecached.layers import attributes
from imagecached.layers.node import Node, is_whiteout


class LinkNote(msgspec.Struct, frozen=True, array_like=True):
    """A hard link whose target is not in its own layer: some layer below must have it.

    ``paths``: every name of this inode in the layer. The attributes are those of its link members: unpacking
    sets them on the linked inode, see :func:`relink`. ``uid``, ``gid`` -1: keep the target's.
    """

    paths: list[bytes]
    target: bytes  # symbolic links of this layer are resolved in it, those of lower layers not
    mode: int  # permission bits only
    uid: int
    gid: int
    mtime: int
    mtime_ns: int
    xattrs: dict[bytes, bytes]


class Notes(msgspec.Struct, frozen=True, omit_defaults=True):
    """Paths are bytes without leading slash, sorted; b"" is the root.

    containerd unpacks the bottom layer of an image by other rules than those above it, and refuses some
    layers in one place only. A layer that does not depend on its place has both ``bottom_only`` and
    ``never_bottom`` empty; a message there says what goes wrong elsewhere, and a chain that puts the layer
    there must be refused with it (Corrupt).
    """

    implicit: list[bytes] = msgspec.field(default_factory=list)  # directories without entry
    links: list[LinkNote] = msgspec.field(default_factory=list)
    whiteouts: list[bytes] = msgspec.field(default_factory=list)  # directories that hold whiteouts
    bottom_only: str = ""
    never_bottom: str = ""
    late: list[bytes] = msgspec.field(default_factory=list)  # directories with an entry behind their content


def relink(node: Node, note: LinkNote) -> None:
    """Do to the linked inode what unpacking the link members does to it."""
    attributes.set_all(
        node,
        note.paths[0],
        mode=note.mode,
        uid=note.uid,
        gid=note.gid,
        mtime=(note.mtime, note.mtime_ns),
        xattrs=note.xattrs,
    )


def collect(
    root: Node,
    implicit: set[Node],
    late: set[Node],
    placeholders: list[Node],
    *,
    bottom_only: str,
    never_bottom: str,
) -> Notes:
    """Walk the finished tree once, note what is there and take the placeholders of links out of it."""
    bare: list[bytes] = []
    belated: list[bytes] = []
    whiteouts: list[bytes] = []
    links: dict[Node, list[bytes]] = {node: [] for node in placeholders}
    stack = [(b"", root)]
    while stack:
        path, directory = stack.pop()
        if directory in implicit:
            bare.append(path)
        elif directory in late:
            belated.append(path)
        prefix = path + b"/" if path else b""
        if _look(directory, prefix, stack, links):
            whiteouts.append(path)
    found = [_link(node, sorted(paths)) for node, paths in links.items() if paths]
    found.sort(key=lambda note: note.paths)
    return Notes(sorted(bare), found, sorted(whiteouts), bottom_only, never_bottom, sorted(belated))


def _look(
    directory: Node, prefix: bytes, stack: list[tuple[bytes, Node]], links: dict[Node, list[bytes]]
) -> bool:
    """Look through one directory; whether it holds a whiteout."""
    assert directory.children is not None
    held = False
    gone = []
    for base, node in directory.children.items():
        if node.children is not None:
            stack.append((prefix + base, node))
        elif not stat.S_IFMT(node.mode):
            links[node].append(prefix + base)
            gone.append(base)
        elif node.rdev == 0 and is_whiteout(node):
            held = True
    for base in gone:
        del directory.children[base]
    return held


def _link(node: Node, paths: list[bytes]) -> LinkNote:
    mode, xattrs = stat.S_IMODE(node.mode), node.xattrs or {}
    return LinkNote(paths, node.target, mode, node.uid, node.gid, node.mtime, node.mtime_ns, xattrs)
