"""The layer file: one file that holds a layer's tar verbatim and is an EROFS image at once.

====================  ===========================================================================
0 … 1023              header: JSON padded with NUL, see :class:`Header`
1024 … 1151           EROFS superblock, written last; zeros to 4095
4096 …                the tar stream, ``tar_bytes`` long (a seam: data of linked files)
metadata.offset …     all the rest, covered by ``metadata_digest``:
                      realigned chunks of sparse files, EROFS metadata, notes (MessagePack), zeros
====================  ===========================================================================

Order on disk: everything but the superblock → fdatasync → superblock → fdatasync. A file without a
superblock is unfinished; nothing mounts it. Everything after the tar depends on the tar alone, so one diffID
gives one file, byte for byte.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from imagecached.errors import Corrupt, InvalidInput, OutOfSpace
from imagecached.layers import erofs
from imagecached.layers.limits import Limits
from imagecached.layers.tar import Scanner
from imagecached.layers.tree import Node, Notes, Tree
from imagecached.oci.digest import Digest

FORMAT: Final = 1
HEADER_BYTES: Final = 1024
DATA_OFFSET: Final = 4096
_ALIGN: Final = 4096
_READ_BYTES: Final = 1 << 20


class Area(msgspec.Struct, frozen=True):
    """A byte range of the file."""

    offset: int
    bytes: int

    @property
    def end(self) -> int:
        return self.offset + self.bytes


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """Bytes 0–1023 of a layer file or seam."""

    format: int
    tar_bytes: int  # 0 in a seam
    entries: int  # members of the tar; a seam: inodes
    inodes: int
    image: Area  # EROFS metadata: nid n lies at offset + 32 n
    notes: Area
    metadata: Area  # everything behind the data
    metadata_digest: str
    diff_id: str | None = None  # layer file
    chain_id: str | None = None  # seam

    @property
    def file_bytes(self) -> int:
        """Length of the file."""
        return self.metadata.end


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """A finished layer file. ``file_bytes`` is its length, ``entries`` the number of members in the tar."""

    diff_id: Digest
    tar_bytes: int
    file_bytes: int
    entries: int


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
        header = _write_metadata(
            fd, plan, msgspec.msgpack.encode(notes), data_end, limits, tar_bytes, entries, diff_id, chain_id
        )
    finally:
        plan.release()
    _sync(fd)
    write_at(fd, _superblock(header), erofs.SUPERBLOCK_OFFSET)
    _sync(fd)
    return header


def _write_metadata(
    fd: int,
    plan: erofs.Plan,
    notes: bytes,
    data_end: int,
    limits: Limits,
    tar_bytes: int,
    entries: int,
    diff_id: Digest | None,
    chain_id: Digest | None,
) -> Header:
    start = _up(data_end)
    base = _up(start + plan.realigned)
    notes_area = Area(base + plan.length, len(notes))
    metadata = Area(start, _up(notes_area.end) - start)
    if metadata.bytes > limits.metadata_bytes:
        raise Corrupt(f"the layer needs more than {limits.metadata_bytes} metadata bytes")
    digest = hashlib.sha256()
    if plan.realigned:
        _realign(fd, plan, start, base)
        _read_all(fd, Area(start, base - start), digest.update)
    at = base
    for piece in plan.encode(base, start):
        digest.update(piece)
        write_at(fd, piece, at)
        at += len(piece)
    tail = notes + bytes(metadata.end - notes_area.end)
    digest.update(tail)
    write_at(fd, tail, at)
    header = Header(
        FORMAT, tar_bytes, entries, plan.inodes, Area(base, plan.length), notes_area, metadata,
        f"sha256:{digest.hexdigest()}", _plain(diff_id), _plain(chain_id),
    )  # fmt: skip
    write_at(fd, msgspec.json.encode(header).ljust(HEADER_BYTES, b"\0"), 0)
    return header


def read_header(fd: int) -> Header:
    """The header of an open layer file or seam. Corrupt if it is none, or does not fit the file; OSError."""
    raw = os.pread(fd, HEADER_BYTES, 0)
    try:
        header = msgspec.json.decode(raw.rstrip(b"\0"), type=Header)
        if header.format != FORMAT:
            raise Corrupt(f"layer file of unknown format {header.format}")
        for text in (header.metadata_digest, header.diff_id, header.chain_id):
            if text is not None:
                Digest.parse(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, InvalidInput) as error:
        raise Corrupt("not a layer file: its header cannot be read") from error
    metadata, image, notes = header.metadata, header.image, header.notes
    inside = (
        DATA_OFFSET
        <= metadata.offset
        <= image.offset
        <= image.end
        <= notes.offset
        <= notes.end
        <= metadata.end
    )
    if not inside or header.tar_bytes > metadata.offset - DATA_OFFSET or os.fstat(fd).st_size != metadata.end:
        raise Corrupt("layer file: its header does not fit the file")
    return header


def read_notes(fd: int, header: Header) -> Notes:
    """The notes of an open layer file or seam. Corrupt, OSError."""
    try:
        return msgspec.msgpack.decode(os.pread(fd, header.notes.bytes, header.notes.offset), type=Notes)
    except msgspec.MsgspecError as error:
        raise Corrupt("layer file: its notes cannot be read") from error


def verify_layer(path: Path, diff_id: Digest) -> None:
    """Digest tar and metadata again, check header and superblock. Corrupt says what differs; OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        header = read_header(fd)
        if header.diff_id != diff_id:
            raise Corrupt(f"layer file of {diff_id}: its header says {header.diff_id}")
        front = os.pread(fd, DATA_OFFSET - HEADER_BYTES, HEADER_BYTES)
        if front != _superblock(header).ljust(DATA_OFFSET - HEADER_BYTES, b"\0"):
            raise Corrupt(f"layer file of {diff_id}: wrong superblock")
        _check(fd, header.metadata, Digest.parse(header.metadata_digest), f"metadata of {diff_id}")
        _check(fd, Area(DATA_OFFSET, header.tar_bytes), diff_id, f"tar of {diff_id}")
    finally:
        os.close(fd)


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


def _superblock(header: Header) -> bytes:
    identity = header.diff_id or header.chain_id or ""
    return erofs.superblock(
        meta=header.image.offset, inodes=header.inodes, file_bytes=header.file_bytes,
        uuid=hashlib.sha256(identity.encode()).digest()[:16],
    )  # fmt: skip


def _realign(fd: int, plan: erofs.Plan, start: int, end: int) -> None:
    """Fill the area of realigned chunks; what no piece covers stays a hole and reads as zeros."""
    for copy in plan.copies():
        _read_all(fd, Area(copy.source, copy.length), _Writer(fd, start + copy.to))
    os.ftruncate(fd, end)


class _Writer:
    """Writes what it is called with, piece after piece."""

    def __init__(self, fd: int, offset: int) -> None:
        self._fd = fd
        self._offset = offset

    def __call__(self, data: bytes) -> None:
        write_at(self._fd, data, self._offset)
        self._offset += len(data)


def _read_all(fd: int, area: Area, sink: Callable[[bytes], None]) -> None:
    at = area.offset
    while at < area.end:
        piece = os.pread(fd, min(_READ_BYTES, area.end - at), at)
        if not piece:
            raise Corrupt(f"layer file: ends at byte {at}")
        sink(piece)
        at += len(piece)


def _check(fd: int, area: Area, expected: Digest, what: str) -> None:
    hasher = expected.hasher()
    _read_all(fd, area, hasher.update)
    if hasher.hexdigest() != expected.hex:
        raise Corrupt(f"{what}: expected digest {expected}, found {expected.algorithm}:{hasher.hexdigest()}")


def _up(offset: int) -> int:
    return (offset + _ALIGN - 1) & -_ALIGN
