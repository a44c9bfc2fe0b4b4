"""Read a layer file or seam back without mounting it: names, links, contents, notes.

A damaged file gives Corrupt, in bounded time: the work is checked against what a file of that size can hold.
Reads by pread, never by mmap: a bad disk must be an OSError, not a SIGBUS. One reader belongs to one thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from imagecached.errors import Corrupt
from imagecached.layers import erofs
from imagecached.layers.chunks import BLOCK
from imagecached.layers.layerheader import Header, read_header, read_notes
from imagecached.layers.limits import shown
from imagecached.layers.metadata import Entry, Metadata
from imagecached.layers.node import Extent
from imagecached.layers.notes import Notes

_T = TypeVar("_T")

_REMEMBERED: Final = 8192  # paths; whoever goes through a tree in order asks for the parent again and again
_PIECE_BYTES: Final = 1 << 20
_LINKS: Final = 255

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
        self._metadata = Metadata(self._fd, self.header, path.name)
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
        root = self._metadata.entry(erofs.ROOT_NID)
        if not root.is_dir:
            raise self._metadata.corrupt("its root is no directory")
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
            if self._metadata.names(directory, middle)[0][0] <= name:
                low = middle
            else:
                high = middle - 1
        for found, nid in self._metadata.names(directory, low):
            if found == name:
                return self._metadata.entry(nid)
        return None

    def children(self, directory: Entry) -> Iterator[tuple[bytes, Entry]]:
        """All entries of ``directory``, sorted by name, without ``.`` and ``..``."""
        last = b""
        for block in range(-(-directory.form[1] // BLOCK)):
            for name, nid in self._metadata.names(directory, block):
                if name <= last:
                    raise self._metadata.corrupt("names of a directory are out of order")
                last = name
                if name not in (b".", b".."):
                    yield name, self._metadata.entry(nid)

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
                raise self._metadata.corrupt("a directory is in two places")
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
        return self._metadata.extents(entry)

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
                    raise self._metadata.corrupt("it ends early")
                yield piece
                at += len(piece)


def _remember(known: dict[bytes, _T], path: bytes, found: _T) -> None:
    if len(known) >= _REMEMBERED:
        known.clear()
    known[path] = found
