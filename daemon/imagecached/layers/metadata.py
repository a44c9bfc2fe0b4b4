"""The EROFS metadata of a layer file or seam, decoded: inodes, directory blocks, attributes, chunk maps.

Knows the part of EROFS that :mod:`imagecached.layers.erofs` writes: 64-byte inodes in 512-byte blocks, inline
attributes, flat, inline and chunk-based data (Linux ``fs/erofs/erofs_fs.h``). Anything else is Corrupt, and
so is every offset or size that leads out of the areas which the header names.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from imagecached.errors import Corrupt
from imagecached.layers import erofs
from imagecached.layers.attributes import OPAQUE
from imagecached.layers.chunks import BLOCK, BLOCK_BITS, HOLE
from imagecached.layers.layerheader import DATA_OFFSET, Header
from imagecached.layers.node import Extent

_PAGE_BYTES: Final = 64 << 10
_PAGES: Final = 32
_BLOCKS: Final = 1024
_PATH_MAX: Final = 4096
_CHUNK_BITS: Final = range(BLOCK_BITS, BLOCK_BITS + 32)
_PREFIXES: Final = {
    **dict(erofs.XATTR_PREFIXES),
    **{index: name for name, index in erofs.XATTR_WHOLE.items()},
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One inode. Same ``nid`` = same inode (hard links)."""

    nid: int
    mode: int  # st_mode with its S_IFMT part
    uid: int
    gid: int
    mtime: int
    mtime_ns: int
    rdev: int  # devices
    size: int  # regular files: logical size in bytes
    nlink: int
    target: bytes  # symbolic links
    xattrs: dict[bytes, bytes]
    form: tuple[
        int, int, int, int
    ]  # layout, size, block address or chunk format, offset behind the attributes

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_whiteout(self) -> bool:
        """Whether overlayfs takes it for a whiteout."""
        return stat.S_ISCHR(self.mode) and self.rdev == 0

    @property
    def is_opaque(self) -> bool:
        """Whether overlayfs hides what lower layers have in this directory."""
        return self.xattrs.get(OPAQUE) == b"y"


class Metadata:
    """The metadata area of the open file ``fd``. Methods raise Corrupt, which says ``name``, or OSError."""

    def __init__(self, fd: int, header: Header, name: str) -> None:
        self._fd = fd
        self._header = header
        self._name = name
        self._pages: dict[int, bytes] = {}
        self._blocks: dict[tuple[int, int], list[tuple[bytes, int]]] = {}

    def entry(self, nid: int) -> Entry:
        """The inode at ``nid``."""
        at = nid << erofs.NID_BITS
        layout, words, mode, _, size, u, _, uid, gid, mtime, mtime_ns, nlink = erofs.INODE.unpack(
            self._bytes(at, erofs.INODE_BYTES)
        )
        at += erofs.INODE_BYTES
        tail = at + (erofs.XATTR_HEADER.size + 4 * (words - 1) if words else 0)
        kind = stat.S_IFMT(mode)
        if layout not in (erofs.FLAT_PLAIN, erofs.FLAT_INLINE, erofs.CHUNK_BASED):
            raise self.corrupt("unknown inode layout")
        form = (layout, size, u, tail)
        target = b""
        if kind == stat.S_IFLNK:
            if not 0 < size <= _PATH_MAX:
                raise self.corrupt("a symbolic link of wrong length")
            target = self._flat(form, 0, size)
        elif kind == stat.S_IFDIR and not 0 < size <= self._header.image.bytes:
            raise self.corrupt("a directory of wrong size")
        return Entry(
            nid, mode, uid, gid, mtime, mtime_ns,
            rdev=u if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0,
            size=size if kind == stat.S_IFREG else 0,
            nlink=nlink, target=target, xattrs=self._xattrs(at, tail), form=form,
        )  # fmt: skip

    def extents(self, entry: Entry) -> list[Extent]:
        """Where a regular file's data lies: (logical offset, length, offset in this file), holes left out."""
        layout, size, u, tail = entry.form
        if not stat.S_ISREG(entry.mode) or not size:
            return []
        if layout == erofs.CHUNK_BASED:
            found = list(self._chunks(size, u, tail))
        else:
            found = [(0, size, u << BLOCK_BITS)]
        for _, length, offset in found:
            if not DATA_OFFSET <= offset <= offset + length <= self._header.image.offset:
                raise self.corrupt("data of a file lies outside of it")
        return found

    def _chunks(self, size: int, chunk_format: int, at: int) -> Iterator[Extent]:
        """The runs of a chunk map. Neighbours that continue one another are one run."""
        bits = BLOCK_BITS + chunk_format
        if bits not in _CHUNK_BITS:
            raise self.corrupt("unknown chunk format")
        start = end = source = 0
        for index, (block,) in enumerate(struct.iter_unpack("<I", self._bytes(at, 4 * -(-size >> bits)))):
            logical, offset = index << bits, block << BLOCK_BITS
            if start < end == logical and block != HOLE and offset == source + logical - start:
                end = min(size, logical + (1 << bits))
                continue
            if start < end:
                yield start, end - start, source
            start, source = logical, offset
            end = logical if block == HOLE else min(size, logical + (1 << bits))
        if start < end:
            yield start, end - start, source

    def _xattrs(self, at: int, end: int) -> dict[bytes, bytes]:
        raw = self._bytes(at, end - at)
        found = {}
        position = erofs.XATTR_HEADER.size
        while position < len(raw):
            if position + erofs.XATTR_ENTRY.size > len(raw):
                raise self.corrupt("malformed extended attributes")
            name_bytes, index, value_bytes = erofs.XATTR_ENTRY.unpack_from(raw, position)
            name = position + erofs.XATTR_ENTRY.size
            value = name + name_bytes
            position = value + value_bytes + (-(name_bytes + value_bytes) % 4)
            if position > len(raw) or index not in _PREFIXES:
                raise self.corrupt("malformed extended attributes")
            found[_PREFIXES[index] + raw[name:value]] = raw[value : value + value_bytes]
        return found

    def names(self, directory: Entry, block: int) -> list[tuple[bytes, int]]:
        """The names and nids in one block of a directory, ``.`` and ``..`` among them."""
        key = directory.nid, block
        known = self._blocks.get(key)
        if known is None:
            if len(self._blocks) == _BLOCKS:
                self._blocks.clear()
            known = self._blocks[key] = self._names(directory, block)
        return known

    def _names(self, directory: Entry, block: int) -> list[tuple[bytes, int]]:
        raw = self._flat(directory.form, block * BLOCK, BLOCK)
        first = erofs.DIRENT.unpack_from(raw)[1] if len(raw) >= erofs.DIRENT_BYTES else 0
        if first % erofs.DIRENT_BYTES or not 0 < first <= len(raw):
            raise self.corrupt("malformed directory")
        dirents = list(erofs.DIRENT.iter_unpack(raw[:first]))
        edges = [offset for _, offset, _, _ in dirents]
        edges.append(max(edges[-1], len(raw.rstrip(b"\0"))))
        names = [(raw[start:end], nid) for (nid, start, _, _), end in zip(dirents, edges[1:], strict=True)]
        if edges != sorted(edges) or any(not name or b"/" in name or b"\0" in name for name, _ in names):
            raise self.corrupt("malformed directory")
        return names

    def _flat(self, form: tuple[int, int, int, int], start: int, length: int) -> bytes:
        """Bytes of what lies in the metadata area: a directory or a link's target."""
        layout, size, u, tail = form
        length = min(length, size - start)
        if layout == erofs.FLAT_INLINE:
            return self._bytes(tail + start, length)
        return self._bytes((u << BLOCK_BITS) - self._header.image.offset + start, length)

    def _bytes(self, at: int, length: int) -> bytes:
        """``length`` bytes at ``at`` of the metadata area."""
        image = self._header.image
        if not 0 <= at <= at + length <= image.bytes:
            raise self.corrupt("its metadata points outside")
        page, start = divmod(at, _PAGE_BYTES)
        if start + length <= _PAGE_BYTES:
            return self._page(page)[start : start + length]
        return self._read(at, length)

    def _page(self, number: int) -> bytes:
        page = self._pages.get(number)
        if page is None:
            if len(self._pages) == _PAGES:
                self._pages.clear()
            at = number * _PAGE_BYTES
            page = self._pages[number] = self._read(at, min(_PAGE_BYTES, self._header.image.bytes - at))
        return page

    def _read(self, at: int, length: int) -> bytes:
        data = os.pread(self._fd, length, self._header.image.offset + at)
        if len(data) != length:
            raise self.corrupt("it ends early")
        return data

    def corrupt(self, what: str) -> Corrupt:
        return Corrupt(f"layer file {self._name}: {what}")
