"""Read a layer file or seam back: header, notes, inodes, directories, contents, without mounting it.

Knows the part of EROFS that :mod:`imagecached.layers.erofs` writes: 64-byte inodes in 512-byte blocks, inline
attributes, flat, inline and chunk-based data (Linux ``fs/erofs/erofs_fs.h``). A file of another form, or a
damaged one, gives Corrupt: every offset is checked against the header's areas, and the work against what a
file of that size can hold. Reads by pread, never by mmap: a bad disk must be an OSError, not a SIGBUS.

One reader belongs to one thread.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from imagecached.errors import Corrupt
from imagecached.layers import erofs
from imagecached.layers.attributes import OPAQUE
from imagecached.layers.chunks import BLOCK, BLOCK_BITS, HOLE
from imagecached.layers.layerfile import DATA_OFFSET, Header, read_header, read_notes
from imagecached.layers.limits import shown
from imagecached.layers.node import Extent
from imagecached.layers.notes import Notes

_T = TypeVar("_T")

_PAGE_BYTES: Final = 64 << 10
_PAGES: Final = 32
_REMEMBERED: Final = 8192  # paths; whoever goes through a tree in order asks for the parent again and again
_PIECE_BYTES: Final = 1 << 20
_LINKS: Final = 255
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


Place = tuple[bytes, Entry]
"""A path without symbolic links and what lies there."""


class LayerReader:
    """An open layer file or seam; a context manager. Every method may raise Corrupt or OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.header: Header = read_header(self._fd)
        except BaseException:
            os.close(self._fd)
            raise
        self._pages: dict[int, bytes] = {}
        self._directories: dict[bytes, Entry] = {}
        self._resolved: dict[bytes, Place | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._fd)

    def fileno(self) -> int:
        """The open file; the offsets of :meth:`extents` count in it."""
        return self._fd

    @cached_property
    def notes(self) -> Notes:
        return read_notes(self._fd, self.header)

    @cached_property
    def root(self) -> Entry:
        root = self._entry(erofs.ROOT_NID)
        if not root.is_dir:
            raise self._corrupt("its root is no directory")
        return root

    # Names

    def lookup(self, path: bytes) -> Entry | None:
        """What lies at ``path`` (no leading slash, b"" is the root), no symbolic link followed."""
        head, _, name = path.rpartition(b"/")
        above = self._directories.get(head)
        if above is not None:
            return self._below(above, path, name)
        found: Entry | None = self.root
        here = b""
        for part in path.split(b"/") if path else ():
            here = here + b"/" + part if here else part
            found = self._below(found, here, part) if found else None
        return found

    def _below(self, above: Entry, path: bytes, name: bytes) -> Entry | None:
        found = self.child(above, name) if above.is_dir else None
        if found is not None and found.is_dir:
            _remember(self._directories, path, found)
        return found

    def child(self, directory: Entry, name: bytes) -> Entry | None:
        """The entry ``name`` of ``directory``, found by bisection as the kernel does."""
        low, high = 0, (directory.form[1] - 1) // BLOCK
        while low < high:
            middle = (low + high + 1) // 2
            if self._names(directory, middle)[0][0] <= name:
                low = middle
            else:
                high = middle - 1
        for found, nid in self._names(directory, low):
            if found == name:
                return self._entry(nid)
        return None

    def children(self, directory: Entry) -> Iterator[tuple[bytes, Entry]]:
        """All entries of ``directory``, sorted by name, without ``.`` and ``..``."""
        last = b""
        for block in range(-(-directory.form[1] // BLOCK)):
            for name, nid in self._names(directory, block):
                if name <= last:
                    raise self._corrupt("names of a directory are out of order")
                last = name
                if name not in (b".", b".."):
                    yield name, self._entry(nid)

    def walk(self) -> Iterator[tuple[bytes, Entry]]:
        """Every name by its path, a directory before what is in it, siblings sorted; first b"", the root."""
        left = self.header.image.bytes // erofs.DIRENT_BYTES
        seen = {self.root.nid}
        stack = [(b"", self.root)]
        while stack:
            path, entry = stack.pop()
            yield path, entry
            if not entry.is_dir:
                continue
            below = list(self.children(entry))
            left -= len(below)
            directories = [found.nid for _, found in below if found.is_dir]
            if left < 0 or len(directories) != len(set(directories)) or not seen.isdisjoint(directories):
                raise self._corrupt("a directory is in two places")
            seen.update(directories)
            prefix = path + b"/" if path else b""
            stack.extend((prefix + name, found) for name, found in reversed(below))

    def resolve(self, path: bytes) -> Place | None:
        """Where ``path`` leads with symbolic links followed, also the last, all inside this one layer.

        None where nothing is. What is neither directory nor link ends the way, and is returned.
        As continuity's ``fs.RootPath``, except where a link's target climbs with ``..`` out of another link.
        """
        head, _, name = path.rpartition(b"/")
        if head in self._resolved:
            here, found, parts = head, self._resolved[head], [name]
        else:
            here, found, parts = b"", (b"", self.root), path.split(b"/")
        for part in parts:
            here = here + b"/" + part if here else part
            if found is not None and found[1].is_dir:
                found = self._follow(found, part)
            _remember(self._resolved, here, found)
        return found

    def _follow(self, start: Place, name: bytes) -> Place | None:
        """Where ``name`` in the directory ``start`` leads."""
        place, entry = start
        todo = [name]
        links = 0
        while todo and entry.is_dir:
            part = todo.pop()
            if part == b"..":
                place = place.rpartition(b"/")[0]
                above = self.lookup(place)
                assert above is not None
                entry = above
            elif part not in (b"", b"."):
                found = self.child(entry, part)
                if found is None:
                    return None
                if not stat.S_ISLNK(found.mode):
                    place, entry = place + b"/" + part if place else part, found
                    continue
                links += 1
                if links > _LINKS:
                    raise Corrupt(f"{self.path.name}: too many symbolic links at {shown(name)}")
                if found.target.startswith(b"/"):
                    place, entry = b"", self.root
                todo.extend(found.target.split(b"/")[::-1])
        return place, entry

    # Contents

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
            if not DATA_OFFSET <= offset <= offset + length <= self.header.image.offset:
                raise self._corrupt("data of a file lies outside of it")
        return found

    def read(self, entry: Entry) -> Iterator[bytes]:
        """The content of a regular file in pieces, holes as zeros."""
        at = 0
        for logical, length, offset in [*self.extents(entry), (entry.size, 0, 0)]:
            while at < logical:
                gap = min(logical - at, _PIECE_BYTES)
                yield bytes(gap)
                at += gap
            while at < logical + length:
                piece = os.pread(self._fd, min(logical + length - at, _PIECE_BYTES), offset + at - logical)
                if not piece:
                    raise self._corrupt("it ends early")
                yield piece
                at += len(piece)

    def _chunks(self, size: int, chunk_format: int, at: int) -> Iterator[Extent]:
        """The runs of a chunk map. Neighbours that continue one another are one run."""
        bits = BLOCK_BITS + chunk_format
        if bits not in _CHUNK_BITS:
            raise self._corrupt("unknown chunk format")
        start = end = source = 0
        for index, (block,) in enumerate(struct.iter_unpack("<I", self._metadata(at, 4 * -(-size >> bits)))):
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

    # On disk

    def _entry(self, nid: int) -> Entry:
        at = nid << erofs.NID_BITS
        layout, words, mode, _, size, u, _, uid, gid, mtime, mtime_ns, nlink = erofs.INODE.unpack(
            self._metadata(at, erofs.INODE_BYTES)
        )
        at += erofs.INODE_BYTES
        tail = at + (erofs.XATTR_HEADER.size + 4 * (words - 1) if words else 0)
        kind = stat.S_IFMT(mode)
        if layout not in (erofs.FLAT_PLAIN, erofs.FLAT_INLINE, erofs.CHUNK_BASED):
            raise self._corrupt("unknown inode layout")
        form = (layout, size, u, tail)
        target = b""
        if kind == stat.S_IFLNK:
            if not 0 < size <= _PATH_MAX:
                raise self._corrupt("a symbolic link of wrong length")
            target = self._flat(form, 0, size)
        elif kind == stat.S_IFDIR and not 0 < size <= self.header.image.bytes:
            raise self._corrupt("a directory of wrong size")
        return Entry(
            nid, mode, uid, gid, mtime, mtime_ns,
            rdev=u if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0,
            size=size if kind == stat.S_IFREG else 0,
            nlink=nlink, target=target, xattrs=self._xattrs(at, tail), form=form,
        )  # fmt: skip

    def _xattrs(self, at: int, end: int) -> dict[bytes, bytes]:
        raw = self._metadata(at, end - at)
        found = {}
        position = erofs.XATTR_HEADER.size
        while position < len(raw):
            if position + erofs.XATTR_ENTRY.size > len(raw):
                raise self._corrupt("malformed extended attributes")
            name_bytes, index, value_bytes = erofs.XATTR_ENTRY.unpack_from(raw, position)
            name = position + erofs.XATTR_ENTRY.size
            value = name + name_bytes
            position = value + value_bytes + (-(name_bytes + value_bytes) % 4)
            if position > len(raw) or index not in _PREFIXES:
                raise self._corrupt("malformed extended attributes")
            found[_PREFIXES[index] + raw[name:value]] = raw[value : value + value_bytes]
        return found

    def _names(self, directory: Entry, block: int) -> list[tuple[bytes, int]]:
        """The names and nids in one block of a directory, ``.`` and ``..`` among them."""
        raw = self._flat(directory.form, block * BLOCK, BLOCK)
        first = erofs.DIRENT.unpack_from(raw)[1] if len(raw) >= erofs.DIRENT_BYTES else 0
        if first % erofs.DIRENT_BYTES or not 0 < first <= len(raw):
            raise self._corrupt("malformed directory")
        dirents = list(erofs.DIRENT.iter_unpack(raw[:first]))
        edges = [offset for _, offset, _, _ in dirents]
        edges.append(max(edges[-1], len(raw.rstrip(b"\0"))))
        names = [(raw[start:end], nid) for (nid, start, _, _), end in zip(dirents, edges[1:], strict=True)]
        if edges != sorted(edges) or any(not name or b"/" in name or b"\0" in name for name, _ in names):
            raise self._corrupt("malformed directory")
        return names

    def _flat(self, form: tuple[int, int, int, int], start: int, length: int) -> bytes:
        """Bytes of what lies in the metadata area: a directory or a link's target."""
        layout, size, u, tail = form
        length = min(length, size - start)
        if layout == erofs.FLAT_INLINE:
            return self._metadata(tail + start, length)
        return self._metadata((u << BLOCK_BITS) - self.header.image.offset + start, length)

    def _metadata(self, at: int, length: int) -> bytes:
        """``length`` bytes at ``at`` of the metadata area."""
        image = self.header.image
        if not 0 <= at <= at + length <= image.bytes:
            raise self._corrupt("its metadata points outside")
        page, start = divmod(at, _PAGE_BYTES)
        if start + length <= _PAGE_BYTES:
            return self._page(page)[start : start + length]
        return self._read_metadata(at, length)

    def _page(self, number: int) -> bytes:
        page = self._pages.get(number)
        if page is None:
            if len(self._pages) == _PAGES:
                self._pages.clear()
            at = number * _PAGE_BYTES
            page = self._pages[number] = self._read_metadata(
                at, min(_PAGE_BYTES, self.header.image.bytes - at)
            )
        return page

    def _read_metadata(self, at: int, length: int) -> bytes:
        data = os.pread(self._fd, length, self.header.image.offset + at)
        if len(data) != length:
            raise self._corrupt("it ends early")
        return data

    def _corrupt(self, what: str) -> Corrupt:
        return Corrupt(f"layer file {self.path.name}: {what}")


def _remember(known: dict[bytes, _T], path: bytes, found: _T) -> None:
    if len(known) >= _REMEMBERED:
        known.clear()
    known[path] = found
