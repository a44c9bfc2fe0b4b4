"""EROFS metadata for a tree of inodes whose file data lies elsewhere in the same file.

On disk (Linux ``fs/erofs/erofs_fs.h``): 512-byte blocks; 64-byte "extended" inodes, addressed by nid =
offset in the metadata area / 32, with extended attributes, small directories, symbolic link targets and
chunk maps behind them; larger directories in blocks after all inodes. No compression, no shared attributes,
no checksum: the layer file's header carries a digest of all this.

Two passes: :func:`plan` gives every inode its place and size, :func:`Plan.encode` yields the bytes. Both
depend on the tree alone, and names are sorted, so the same tree gives the same bytes. An inode that has
something inline never crosses a block, as the kernel demands.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from imagecached.errors import Corrupt
from imagecached.layers import chunks
from imagecached.layers.acl import ACCESS, DEFAULT
from imagecached.layers.chunks import BLOCK, BLOCK_BITS, HOLE
from imagecached.layers.node import Node

SUPERBLOCK_OFFSET: Final = 1024
MAGIC: Final = 0xE0F5E1E2
LARGEST_FILE: Final = HOLE << BLOCK_BITS
ROOT_NID: Final = 2  # some programs take inode 0 for "none"
NID_BITS: Final = 5
_CHUNKED_FILE: Final = 0x4
_MTIME: Final = 0x2

FLAT_PLAIN: Final = 1  # i_format: extended inode | data layout << 1
FLAT_INLINE: Final = 1 | 2 << 1
CHUNK_BASED: Final = 1 | 4 << 1

SUPERBLOCK: Final = struct.Struct("<IIIBBHQQIIII16s16sI44x")
INODE: Final = struct.Struct("<HHHHQIIIIQII16x")  # format xattrs mode - size u ino uid gid mtime ns nlink
DIRENT: Final = struct.Struct("<QHBB")  # nid name-offset type -
XATTR_HEADER: Final = struct.Struct("<IB7x")
XATTR_ENTRY: Final = struct.Struct("<BBH")  # name length, prefix index, value length
INODE_BYTES: Final = INODE.size
DIRENT_BYTES: Final = DIRENT.size

XATTR_PREFIXES: Final = ((1, b"user."), (4, b"trusted."), (6, b"security."))
XATTR_WHOLE: Final = {ACCESS: 2, DEFAULT: 3}

_FILE_TYPES: Final = (0, 5, 3, 0, 2, 0, 4, 0, 1, 0, 7, 0, 6, 0, 0, 0)  # by st_mode >> 12
_FLUSH: Final = 16384  # inodes encoded at a time: about 1 MiB
_ZEROS: Final = bytes(BLOCK)
_REGULAR: Final = stat.S_IFREG >> 12


@dataclass(slots=True)
class _Directory:
    node: Node
    parent: Node
    names: list[bytes]  # sorted, with "." and ".."
    cuts: list[int]  # index of each block's first name
    last: int  # bytes used in the last block
    block: int = -1  # first of its blocks, counted from the directory area; -1: inline

    @property
    def size(self) -> int:
        return (len(self.cuts) - 1) * BLOCK + self.last


@dataclass(slots=True)
class Plan:
    """Where everything goes. Offsets count from the start of the metadata area, which is block-aligned."""

    order: list[Node] = field(default_factory=list)
    directories: dict[Node, _Directory] = field(default_factory=dict)
    targets: dict[Node, int] = field(default_factory=dict)  # long symbolic link → block in the directory area
    behind: list[Node] = field(default_factory=list)  # inodes with blocks in the directory area, in its order
    sparse: dict[Node, chunks.Layout] = field(default_factory=dict)
    xattrs: dict[Node, bytes] = field(default_factory=dict)
    inode_bytes: int = 0  # multiple of the block size
    blocks: int = 0  # of the directory area, behind the inodes
    realigned: int = 0  # bytes of the area for realigned chunks

    @property
    def inodes(self) -> int:
        return len(self.order)

    @property
    def length(self) -> int:
        """Length of the metadata area."""
        return self.inode_bytes + self.blocks * BLOCK

    def copies(self) -> Iterator[chunks.Copy]:
        """What to put into the area of realigned chunks."""
        for layout in self.sparse.values():
            yield from layout.copies()

    def encode(self, base: int, realigned: int) -> Iterator[bytes]:
        """The area in pieces, for a file with it at ``base`` and realigned chunks at ``realigned``."""
        blocks = (base + self.inode_bytes) >> BLOCK_BITS
        parts: list[bytes] = []
        at = 0
        for serial, node in enumerate(self.order, 1):
            place = node.nid << NID_BITS
            if place != at:
                parts.append(_ZEROS[: place - at])
            if node.mode >> 12 == _REGULAR and not node.xattrs and not isinstance(node.data, list):
                part = _pack(node, serial, FLAT_PLAIN, 0, node.size, (node.data or 0) >> BLOCK_BITS)
            else:
                part = self._inode(node, serial, blocks, realigned)
            parts.append(part)
            at = place + len(part)
            if not serial % _FLUSH:
                yield b"".join(parts)
                parts = []
        parts.append(bytes(self.inode_bytes - at))
        yield b"".join(parts)
        yield from self._blocks()

    def release(self) -> None:
        """Forget the places noted in the tree, so that it can be planned again."""
        for node in self.order:
            node.nid = 0

    def _inode(self, node: Node, serial: int, blocks: int, realigned: int) -> bytes:
        """One inode with all that lies behind it."""
        xattrs = self.xattrs.get(node, b"")
        layout, size, u, tail = FLAT_PLAIN, 0, node.rdev, b""
        if node in self.sparse:
            chunked = self.sparse[node]
            layout, size = CHUNK_BASED, node.size
            u, tail = chunked.bits - BLOCK_BITS, chunked.encoded(realigned)
        elif node.mode >> 12 == _REGULAR:
            size, u = node.size, _block_address(node)
        elif node.children is not None:
            directory = self.directories[node]
            size, u = directory.size, blocks + directory.block
            if directory.block < 0:
                layout, u, tail = FLAT_INLINE, 0, _dirents(directory, 0)
        elif node in self.targets:
            size, u = len(node.target), blocks + self.targets[node]
        elif node.target:
            layout, size, tail = FLAT_INLINE, len(node.target), node.target
        words = 1 + (len(xattrs) - XATTR_HEADER.size) // 4 if xattrs else 0
        return _pack(node, serial, layout, words, size, u) + xattrs + tail

    def _blocks(self) -> Iterator[bytes]:
        """The directory area: large directories and long link targets."""
        for node in self.behind:
            if node.children is None:
                yield node.target + bytes(-len(node.target) % BLOCK)
            else:
                directory = self.directories[node]
                yield b"".join(
                    _dirents(directory, block).ljust(BLOCK, b"\0") for block in range(len(directory.cuts))
                )


def plan(root: Node, most: int) -> Plan:
    """Place every inode below ``root`` and count its names. Corrupt when more than ``most`` bytes are needed.

    Until :meth:`Plan.release` the tree belongs to the plan.
    """
    found = Plan()
    order = found.order
    at = _place_directory(found, root, root, ROOT_NID << NID_BITS)
    stack = [root]
    while stack:
        parent = stack.pop()
        children = parent.children
        assert children is not None
        for name in found.directories[parent].names:
            node = children.get(name)
            if node is None:  # "." and ".."
                continue
            if node.nid:
                node.nlink += 1
            elif node.mode >> 12 == _REGULAR and not node.xattrs and not isinstance(node.data, list):
                if at & (BLOCK - 1) > BLOCK - INODE_BYTES:
                    at = (at | (BLOCK - 1)) + 1
                node.nid = at >> NID_BITS
                node.nlink = 1
                order.append(node)
                at += INODE_BYTES
            elif node.children is not None:
                at = _place_directory(found, node, parent, at)
                parent.nlink += 1
                stack.append(node)
            else:
                at = _place_other(found, node, at, most)
        if at + found.blocks * BLOCK + found.realigned > most:
            raise Corrupt(f"the layer needs more than {most} metadata bytes")
    found.inode_bytes = (at + BLOCK - 1) & -BLOCK
    return found


def superblock(*, meta: int, inodes: int, file_bytes: int, uuid: bytes) -> bytes:
    """The superblock of a file of ``file_bytes`` with its metadata area at byte ``meta``."""
    return SUPERBLOCK.pack(
        MAGIC, 0, _MTIME, BLOCK_BITS, 0, ROOT_NID, inodes, 0, 0,
        file_bytes >> BLOCK_BITS, meta >> BLOCK_BITS, 0, uuid, b"", _CHUNKED_FILE,
    )  # fmt: skip


def _pack(node: Node, serial: int, layout: int, words: int, size: int, u: int) -> bytes:
    """The 64 bytes of an inode."""
    return INODE.pack(
        layout,
        words,
        node.mode,
        0,
        size,
        u,
        serial,
        node.uid,
        node.gid,
        node.mtime,
        node.mtime_ns,
        node.nlink,
    )


def _block_address(node: Node) -> int:
    if not node.data:
        return 0
    assert isinstance(node.data, int)
    assert not node.data % BLOCK
    return node.data >> BLOCK_BITS


def _place(found: Plan, node: Node, at: int, tail: int) -> int:
    """Place an inode with ``tail`` inline bytes, all in one block; attributes alone may cross blocks."""
    xattrs = 0
    if node.xattrs:
        found.xattrs[node] = _xattrs(node.xattrs)
        xattrs = len(found.xattrs[node])
    size = INODE_BYTES + (xattrs + tail if tail else 0)
    if (at & (BLOCK - 1)) + size > BLOCK:
        at = (at | (BLOCK - 1)) + 1
    node.nid = at >> NID_BITS
    node.nlink = 1
    found.order.append(node)
    return (at + INODE_BYTES + xattrs + tail + 31) & -32


def _fits(node: Node, tail: int, room: int = BLOCK) -> bool:
    """Whether ``tail`` bytes can be inline: in ``room`` bytes of one block with inode and attributes."""
    xattrs = 0
    if node.xattrs:
        xattrs = XATTR_HEADER.size + sum(7 + len(key) + len(value) for key, value in node.xattrs.items())
    return INODE_BYTES + xattrs + tail <= room


def _place_directory(found: Plan, node: Node, parent: Node, at: int) -> int:
    assert node.children is not None
    names = sorted([*node.children, b".", b".."])
    cuts, used = [0], 0
    for index, name in enumerate(names):
        need = DIRENT_BYTES + len(name)
        used += need
        if used > BLOCK:
            cuts.append(index)
            used = need
    directory = _Directory(node, parent, names, cuts, used)
    found.directories[node] = directory
    room = BLOCK - at % BLOCK if node is parent else BLOCK  # the root stays where the superblock says
    inline = directory.size if len(cuts) == 1 and _fits(node, used, room) else 0
    if not inline:
        directory.block = found.blocks
        found.blocks += len(cuts)
        found.behind.append(node)
    at = _place(found, node, at, inline)
    node.nlink = 2
    return at


def _place_other(found: Plan, node: Node, at: int, most: int) -> int:
    """Place a symbolic link, a device, or a file with attributes or pieces."""
    if isinstance(node.data, list) and node.size:
        beside = at + found.blocks * BLOCK
        layout = found.sparse[node] = chunks.plan(node.size, node.data, found.realigned, most, beside)
        found.realigned = layout.stop
        # the map may cross blocks, so it does not count as inline
        return (_place(found, node, at, 0) + layout.map_bytes + 31) & -32
    length = len(node.target)
    if not length or _fits(node, length):
        return _place(found, node, at, length)
    found.targets[node] = found.blocks
    found.behind.append(node)
    found.blocks += -(-length >> BLOCK_BITS)
    return _place(found, node, at, 0)


def _dirents(directory: _Directory, block: int) -> bytes:
    """One block of a directory, without padding."""
    first = directory.cuts[block]
    last = directory.cuts[block + 1] if block + 1 < len(directory.cuts) else len(directory.names)
    names = directory.names[first:last]
    children = directory.node.children
    assert children is not None
    offset = DIRENT_BYTES * len(names)
    parts = []
    for name in names:
        node = children.get(name) or (directory.node if name == b"." else directory.parent)
        parts.append(DIRENT.pack(node.nid, offset, _FILE_TYPES[node.mode >> 12], 0))
        offset += len(name)
    return b"".join(parts) + b"".join(names)


def _xattrs(xattrs: dict[bytes, bytes]) -> bytes:
    """The attributes of one inode, sorted by name."""
    parts = [XATTR_HEADER.pack(0, 0)]
    for key, value in sorted(xattrs.items()):
        index, name = _prefix(key)
        entry = XATTR_ENTRY.pack(len(name), index, len(value)) + name + value
        parts.append(entry + bytes(-len(entry) % 4))
    return b"".join(parts)


def _prefix(key: bytes) -> tuple[int, bytes]:
    if key in XATTR_WHOLE:
        return XATTR_WHOLE[key], b""
    for index, prefix in XATTR_PREFIXES:
        if key.startswith(prefix):
            return index, key[len(prefix) :]
    raise ValueError(f"extended attribute {key!r} cannot be stored")
