"""Writing layer files: one file that holds a layer's tar verbatim and is an EROFS image at once.

:mod:`imagecached.layers.layerheader` says what lies where. Order on disk: everything but the superblock →
fdatasync → superblock → fdatasync. A file without a superblock is unfinished; nothing mounts it. Everything
behind the tar depends on the tar alone, so one diffID gives one file, byte for byte.
"""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import dataclass, field
from typing import Final

import msgspec

from imagecached.errors import Corrupt, OutOfSpace
from imagecached.layers import erofs
from imagecached.layers.layerheader import (
    DATA_OFFSET,
    FORMAT,
    HEADER_BYTES,
    Area,
    Header,
    read_area,
    read_header,
    read_notes,
    verify_layer,
)
from imagecached.layers.limits import Limits
from imagecached.layers.node import Node
from imagecached.layers.notes import Notes
from imagecached.layers.tar import Scanner
from imagecached.layers.tree import Tree
from imagecached.oci.digest import Digest

__all__ = [
    "DATA_OFFSET",
    "HEADER_BYTES",
    "Area",
    "Header",
    "LayerInfo",
    "LayerWriter",
    "read_header",
    "read_notes",
    "verify_layer",
    "write_at",
    "write_image",
]

_ALIGN: Final = 4096


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """A finished layer file. ``file_bytes`` is its length, ``entries`` the number of members in the tar.

    ``inflate_seconds``: CPU time that digesting and inflating the blob took, where it came from one.
    """

    diff_id: Digest
    tar_bytes: int
    file_bytes: int
    entries: int
    inflate_seconds: float = field(default=0.0, compare=False)


class LayerWriter:
    """Writes one layer file from the bytes of a tar stream; synchronous, used by one thread at a time.

    ``fd``: an empty regular file, open for reading and writing; it stays the caller's. ``expected``: the
    diffID, or None to take any. After an error the file is of no use and has no superblock.
    """

    def __init__(self, fd: int, limits: Limits, expected: Digest | None) -> None:
        self._fd = fd
        self._limits = limits
        self._expected = expected
        self._hasher = hashlib.sha256() if expected is None else expected.hasher()
        self._tree = Tree(limits)
        self._scanner = Scanner(self._tree.apply, limits, DATA_OFFSET)
        self._bytes = 0

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the stream: digest, write, scan. ``data`` may be reused afterwards.

        Corrupt, Unsupported, OutOfSpace.
        """
        if self._bytes + len(data) > self._limits.tar_bytes:
            raise Corrupt(f"the layer is longer than {self._limits.tar_bytes} bytes")
        self._hasher.update(data)
        write_at(self._fd, data, DATA_OFFSET + self._bytes)
        self._bytes += len(data)
        self._scanner.feed(data)

    def finish(self) -> LayerInfo:
        """End of stream: check it and the diffID, write the rest, make it durable. Corrupt, OutOfSpace."""
        self._scanner.finish()
        algorithm = "sha256" if self._expected is None else self._expected.algorithm
        diff_id = Digest.parse(f"{algorithm}:{self._hasher.hexdigest()}")
        if self._expected is not None and diff_id != self._expected:
            raise Corrupt(f"layer: expected diffID {self._expected}, found {diff_id}")
        notes = self._tree.finish()
        header = write_image(
            self._fd, self._tree.root, notes, data_end=DATA_OFFSET + self._bytes, tar_bytes=self._bytes,
            entries=self._scanner.entries, limits=self._limits, diff_id=diff_id,
        )  # fmt: skip
        return LayerInfo(diff_id, self._bytes, header.file_bytes, self._scanner.entries)


def write_image(
    fd: int,
    root: Node,
    notes: Notes,
    *,
    data_end: int,
    tar_bytes: int,
    entries: int,
    limits: Limits,
    diff_id: Digest | None = None,
    chain_id: Digest | None = None,
) -> Header:
    """Write everything behind the data at 4096…``data_end`` and make the file mountable and durable.

    Shared by layer files (``diff_id``) and seams (``chain_id``; the caller has put the data of linked files
    at 512-aligned offsets from 4096 on, ``tar_bytes`` 0). ``Node.data`` are byte offsets in ``fd``, which
    must be readable when there are sparse files. Corrupt (too much metadata), OutOfSpace.
    """
    plan = erofs.plan(root, limits.metadata_bytes)
    try:
        written = _write_metadata(fd, plan, msgspec.msgpack.encode(notes), data_end, limits.metadata_bytes)
    finally:
        plan.release()
    header = Header(FORMAT, tar_bytes, entries, plan.inodes, *written, _plain(diff_id), _plain(chain_id))
    write_at(fd, header.encoded(), 0)
    _sync(fd)
    write_at(fd, header.superblock(), erofs.SUPERBLOCK_OFFSET)
    _sync(fd)
    return header


def _write_metadata(
    fd: int, plan: erofs.Plan, notes: bytes, data_end: int, most: int
) -> tuple[Area, Area, Area, str]:
    """Write what follows the data; returns the areas of image, notes and all of it, and its digest."""
    start = _up(data_end)
    base = _up(start + plan.realigned)
    notes_area = Area(base + plan.length, len(notes))
    metadata = Area(data_end, _up(notes_area.end) - data_end)
    if metadata.bytes > most:
        raise Corrupt(f"the layer needs more than {most} metadata bytes")
    if metadata.end > erofs.LARGEST_FILE:
        raise Corrupt(f"the layer needs a file of {metadata.end} bytes, which EROFS cannot address")
    digest = hashlib.sha256(bytes(start - data_end))
    if plan.realigned:
        _realign(fd, plan, start, base)
        read_area(fd, Area(start, base - start), digest.update)
    at = base
    for piece in plan.encode(base, start):
        digest.update(piece)
        write_at(fd, piece, at)
        at += len(piece)
    tail = notes + bytes(metadata.end - notes_area.end)
    digest.update(tail)
    write_at(fd, tail, at)
    return Area(base, plan.length), notes_area, metadata, f"sha256:{digest.hexdigest()}"


def write_at(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of ``data``. OutOfSpace for a full disk or quota, other OSError as they are."""
    view = memoryview(data)
    while view:
        try:
            written = os.pwrite(fd, view, offset)
        except OSError as error:
            raise _space(error) from error
        view = view[written:]
        offset += written


def _realign(fd: int, plan: erofs.Plan, start: int, end: int) -> None:
    """Fill the area of realigned chunks; what no piece covers stays a hole and reads as zeros."""
    for copy in plan.copies():
        read_area(fd, Area(copy.source, copy.length), _Writer(fd, start + copy.to).write)
    try:
        os.ftruncate(fd, end)
    except OSError as error:
        raise _space(error) from error


class _Writer:
    """Writes piece after piece."""

    def __init__(self, fd: int, offset: int) -> None:
        self._fd = fd
        self._offset = offset

    def write(self, data: bytes) -> None:
        write_at(self._fd, data, self._offset)
        self._offset += len(data)


def _sync(fd: int) -> None:
    try:
        os.fdatasync(fd)
    except OSError as error:  # delayed allocation reports a full disk only here
        raise _space(error) from error


def _space(error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutOfSpace(f"no space left for the layer: {error.strerror}")
    return error


def _plain(digest: Digest | None) -> str | None:
    return None if digest is None else str(digest)  # msgspec takes no subclass of str


def _up(offset: int) -> int:
    return (offset + _ALIGN - 1) & -_ALIGN
